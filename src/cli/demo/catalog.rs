//! What the demonstration's retailer sells, and where: made up from an index, the same every time.

/// Distribution centers.
pub const CENTERS: usize = 2;
/// Stores.
pub const STORES: usize = 50;
/// All locations: the centers, then the stores.
pub const LOCATIONS: usize = CENTERS + STORES;

/// Name of a location, by its index.
pub fn location(index: usize) -> String {
    match index {
        0 => "dc-east".to_owned(),
        1 => "dc-west".to_owned(),
        _ => format!("store-{:03}", index + 1 - CENTERS),
    }
}

/// SKU of an article, by its index: a GTIN-13.
///
/// The prefixes 20 to 29 are those that GS1 leaves to retailers for use within their own stores,
/// so that no article of a real company is named.
pub fn sku(index: usize) -> String {
    // An odd factor that 5 does not divide permutes the numbers of ten digits, so no two are equal.
    let item = (index as u64 + 1).wrapping_mul(3_141_592_653) % 10_000_000_000;
    let digits = format!("2{}{item:010}", department(index));
    let check = check_digit(&digits);
    format!("{digits}{check}")
}

/// Check digit of a GTIN-13 by its first twelve digits: weighted 1, 3, 1, 3 … from the left, what
/// is missing to a multiple of ten.
pub fn check_digit(digits: &str) -> u32 {
    let sum: u32 = digits
        .bytes()
        .zip([1, 3].into_iter().cycle())
        .map(|(digit, weight)| u32::from(digit - b'0') * weight)
        .sum();
    (10 - sum % 10) % 10
}

/// Name of an article, by its index, for people.
pub fn title(index: usize) -> String {
    let department = department(index);
    let mixed = mix(index as u64);
    let pick = |words: &[&'static str], shift: u32| {
        words[usize::try_from(mixed >> shift).unwrap_or(usize::MAX) % words.len()]
    };
    let make = pick(&MAKES, 8);
    let article = pick(&ARTICLES[department], 16);
    let color = pick(&COLORS, 24);
    format!("{make} {article}, {color}")
}

fn department(index: usize) -> usize {
    // Bounded by the remainder, so the cast keeps the value.
    (mix(index as u64) % 10) as usize
}

/// Spreads neighboring indexes (the last step of a 64-bit mixing function).
fn mix(index: u64) -> u64 {
    let mixed = (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 31)).wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 8
}

const MAKES: [&str; 12] = [
    "Fairhaven",
    "Norrland",
    "Oakline",
    "Alder",
    "Bluebird",
    "Kestrel",
    "Marlow",
    "Tidewater",
    "Juniper",
    "Saltmarsh",
    "Hearth",
    "Linden",
];

const COLORS: [&str; 10] = [
    "black", "white", "navy", "forest", "sand", "rust", "slate", "plum", "mustard", "sky",
];

const ARTICLES: [[&str; 6]; 10] = [
    [
        "Rain Jacket",
        "Down Vest",
        "Wool Coat",
        "Windbreaker",
        "Parka",
        "Fleece",
    ],
    [
        "T-Shirt",
        "Linen Shirt",
        "Hoodie",
        "Cardigan",
        "Polo",
        "Blouse",
    ],
    [
        "Jeans",
        "Chinos",
        "Shorts",
        "Pleated Skirt",
        "Joggers",
        "Leggings",
    ],
    [
        "Running Shoe",
        "Hiking Boot",
        "Sandal",
        "Loafer",
        "Sneaker",
        "Slipper",
    ],
    [
        "Backpack", "Tote Bag", "Belt", "Scarf", "Umbrella", "Wallet",
    ],
    [
        "Frying Pan",
        "Kettle",
        "Chef's Knife",
        "Baking Tin",
        "Carafe",
        "Mug Set",
    ],
    [
        "Duvet Cover",
        "Pillow",
        "Throw Blanket",
        "Bath Towel",
        "Curtain",
        "Rug",
    ],
    [
        "Desk Lamp",
        "Alarm Clock",
        "Speaker",
        "Headphones",
        "Charger",
        "Torch",
    ],
    [
        "Building Blocks",
        "Puzzle",
        "Plush Bear",
        "Board Game",
        "Kite",
        "Paint Set",
    ],
    [
        "Yoga Mat",
        "Dumbbell",
        "Water Bottle",
        "Football",
        "Tent",
        "Sleeping Bag",
    ],
];
