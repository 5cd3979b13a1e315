//! A real year of a retailer (Online Retail, UCI 352: 541,909 invoice lines, a million movements)
//! through real processes, in every way that movements can arrive. Whatever the way, the books are
//! those that the invoice lines give by hand, and the digest is the same.
//!
//! The expectation is computed from the CSV here, on purpose without the mapping that makes the
//! movements: a mistake in one does not excuse the other.
//!
//! `SELLABLE_TEST_ROWS=20000` takes only the first rows, for a quick look. `--nocapture` shows
//! how fast it went; nothing is asserted about that.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use async_nats::{HeaderMap, jetstream};
use prost::Message;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use sellable::{
    limits::{BATCH_MOVEMENTS_MAX, QUERY_SKUS_MAX},
    proto::v1 as pb,
    wire::text::{to_cloud_event_line, to_json_line},
};

use crate::{
    mapping::{self, Class, Row},
    nats::NatsServer,
    server::{CHANNEL, Client, RULES, Server, Setup, patiently},
};

const SEED: u64 = 352;
/// Rows of the whole data set.
const ROWS: usize = 541_909;
/// Messages published to NATS and not yet acknowledged.
const IN_FLIGHT_MAX: usize = 256;

/// What the books have to say in the end.
#[derive(Default)]
struct Expected {
    /// Units on the shelf, by SKU.
    good: BTreeMap<String, i64>,
    opening_skus: usize,
    opening_units: i64,
    sales: usize,
    /// Movements that the rows become, opening stock included.
    movements: usize,
}

/// Where a movement comes from: the opening stock, or a row and its place among its movements.
#[derive(Clone, Copy)]
enum Place {
    Opening(u32),
    Row(u32, u8),
}

/// The year as movements. They are made when they are needed: a million of them, with all their
/// texts, would take half a gigabyte.
struct Year {
    rows: Vec<Row>,
    opening: Vec<pb::Movement>,
    expected: Expected,
}

impl Year {
    /// In the order of the file.
    fn places(&self) -> Vec<Place> {
        let opening = (0..self.opening.len() as u32).map(Place::Opening);
        let rows = self.rows.iter().enumerate().flat_map(|(index, row)| {
            let movements = match row.class() {
                Class::NotGoods => 0,
                Class::Sale => 2,
                Class::Cancellation | Class::AdjustIn | Class::AdjustOut => 1,
            };
            (0..movements).map(move |part| Place::Row(index as u32, part))
        });
        opening.chain(rows).collect()
    }

    fn movement(&self, place: Place) -> pb::Movement {
        match place {
            Place::Opening(index) => self.opening[index as usize].clone(),
            Place::Row(index, part) => {
                let movements = self.rows[index as usize].movements();
                let movement = movements.into_iter().nth(part.into());
                movement.expect("a row has the movements of its class")
            }
        }
    }
}

fn data_file() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(mapping::DATA_FILE);
    assert!(
        path.is_file(),
        "this test needs the Online Retail data set (UCI 352) as {}, which is not there",
        path.display()
    );
    path
}

fn rows_max() -> usize {
    match std::env::var("SELLABLE_TEST_ROWS") {
        Ok(text) => text.parse().expect("SELLABLE_TEST_ROWS is a number"),
        Err(_) => usize::MAX,
    }
}

/// What the rows give by hand: sales and losses take, cancellations and finds give, and what was
/// there before is as much as keeps the balance from falling below zero.
fn expect(path: &Path, rows_max: usize) -> Expected {
    let file = zstd::Decoder::new(File::open(path).expect("opens")).expect("is zstd");
    let mut reader = csv::Reader::from_reader(file);
    let header = reader.headers().expect("has a header").clone();
    let column = |name: &str| header.iter().position(|n| n == name).expect("a column");
    let [invoice, code, quantity, price, customer] = [
        "InvoiceNo",
        "StockCode",
        "Quantity",
        "UnitPrice",
        "CustomerID",
    ]
    .map(column);
    let mut sums: HashMap<String, (i64, i64)> = HashMap::new();
    let mut expected = Expected::default();
    for record in reader.records().take(rows_max) {
        let record = record.expect("a row");
        let sku = record[code].to_ascii_uppercase();
        let digits = sku.chars().take_while(char::is_ascii_digit).count();
        let letters = sku.chars().skip(digits).all(|c| c.is_ascii_uppercase());
        if !(digits == 5 && letters || sku.starts_with("DCGS") || sku == "PADS") {
            continue;
        }
        let quantity: i64 = record[quantity].parse().expect("a number");
        let price: f64 = record[price].parse().expect("a price");
        let change = if record[invoice].starts_with('C') {
            quantity.abs()
        } else if quantity < 0 || (price == 0.0 && record[customer].is_empty()) {
            quantity
        } else {
            expected.sales += 1;
            expected.movements += 1;
            -quantity
        };
        expected.movements += 1;
        let (sum, lowest) = sums.entry(sku).or_default();
        *sum += change;
        *lowest = (*lowest).min(*sum);
    }
    for (sku, (sum, lowest)) in sums {
        expected.opening_skus += usize::from(lowest < 0);
        expected.opening_units -= lowest;
        expected.good.insert(sku, sum - lowest);
    }
    expected.movements += expected.opening_skus;
    expected
}

/// What [`RULES`] let the channel sell of so many free units at one location.
fn ats_of(free: i64) -> i64 {
    (free - 3).max(0) * 90 / 100
}

/// Makes sure that every SKU stands as it has to, and gives the digest.
async fn check(client: &Client, expected: &Expected, position: u64) -> String {
    let digest = client.digest(position).await;
    let skus: Vec<&String> = expected.good.keys().collect();
    for skus in skus.chunks(QUERY_SKUS_MAX) {
        for include_locations in [true, false] {
            let request = pb::GetRequest {
                channel: CHANNEL.into(),
                skus: skus.iter().map(|sku| (*sku).clone()).collect(),
                include_locations,
                min_position: position,
            };
            let answer = client.availability().get(request).await.expect("an answer");
            let answer = answer.into_inner();
            assert!(answer.position >= position);
            assert_eq!(answer.items.len(), skus.len());
            for (item, sku) in answer.items.into_iter().zip(skus) {
                let good = expected.good[*sku];
                let locations = pb::LocationAvailability {
                    location: "uk-warehouse".into(),
                    available: (good - 3).max(0),
                    balances: Some(pb::Balances {
                        good,
                        on_hand: good,
                        free: good,
                        ..pb::Balances::default()
                    }),
                };
                let wanted = pb::SkuAvailability {
                    sku: (*sku).clone(),
                    ats: ats_of(good),
                    known: true,
                    locations: if include_locations {
                        vec![locations]
                    } else {
                        Vec::new()
                    },
                };
                assert_eq!(item, wanted);
            }
        }
    }
    assert_eq!(digest.units, expected.good.values().sum::<i64>());
    assert_eq!(digest.order_lines, expected.sales as u64);
    let status = client.status().await;
    assert_eq!(status.movements_applied, expected.movements as u64);
    assert_eq!(status.movements_parked, 0);
    assert_eq!(status.skus, expected.good.len() as u64);
    digest.digest
}

fn tell(what: &str, movements: usize, started: Instant, digest: &str) {
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{what:42} {movements:>9} movements  {seconds:6.1} s  {:>8.0} /s  digest {digest}",
        movements as f64 / seconds
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_year_gives_the_same_books_however_it_arrives() {
    let path = data_file();
    let rows_max = rows_max();
    let started = Instant::now();
    let expected = expect(&path, rows_max);
    let rows = mapping::read(&path, rows_max, |_| ()).expect("the rows");
    let year = Arc::new(Year {
        opening: mapping::opening_stock(&rows),
        rows,
        expected,
    });
    assert_eq!(year.places().len(), year.expected.movements);
    if rows_max >= ROWS {
        check_against_the_description(&year);
    }
    println!("read in {:.1} s", started.elapsed().as_secs_f64());

    let digest = by_the_command_line(&year).await;
    let (shuffled, doubled) = shuffled_and_doubled(&year).await;
    let (live, replayed) = through_nats(&year).await;
    for other in [shuffled, doubled, live, replayed] {
        assert_eq!(other, digest);
    }
}

/// The counts that the description of the data set gives. It has none of the opening stock, which
/// follows from them row by row; that one was counted by another program.
fn check_against_the_description(year: &Year) {
    let mut counts: BTreeMap<Class, (usize, i64)> = BTreeMap::new();
    for row in &year.rows {
        let (rows, units) = counts.entry(row.class()).or_default();
        *rows += 1;
        *units += row.quantity;
    }
    let counts: Vec<_> = counts.into_iter().collect();
    assert_eq!(
        counts,
        [
            (Class::NotGoods, (2_946, 10_309)),
            (Class::Cancellation, (8_704, -272_030)),
            (Class::AdjustOut, (1_336, -206_957)),
            (Class::AdjustIn, (1_128, 54_147)),
            (Class::Sale, (527_795, 5_590_981)),
        ]
    );
    let expected = &year.expected;
    assert_eq!(
        (
            expected.good.len(),
            expected.opening_skus,
            expected.opening_units
        ),
        (3_943, 3_886, 5_646_104)
    );
}

/// In order, from a file, by `sellable post`, into one shard.
async fn by_the_command_line(year: &Year) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("movements.ndjson");
    let mut output = BufWriter::new(File::create(&file).expect("a file"));
    for place in year.places() {
        let line = to_json_line(&year.movement(place)).expect("has a form in JSON");
        writeln!(output, "{line}").expect("written");
    }
    output.flush().expect("written");

    let mut server = Setup::new().rules(RULES).start();
    let started = Instant::now();
    let file = file.to_str().expect("a path in UTF-8");
    let posted = server.run(&["post", file, "--quiet", "--json"]);
    let printed = String::from_utf8_lossy(&posted.stdout).into_owned();
    assert!(posted.status.success(), "{}: {printed}", posted.status);
    let report: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(report["applied"], year.expected.movements);
    assert_eq!(report["total"], year.expected.movements);
    let position = report["position"].as_u64().expect("a position");
    let digest = check(&server.connect().await, &year.expected, position).await;
    tell(
        "embedded, 1 shard, sellable post",
        year.expected.movements,
        started,
        &digest,
    );
    server.stop();
    digest
}

/// Posts movements on one stream; how many of them were repeats, and the last position.
async fn post(client: &Client, year: &Arc<Year>, places: Vec<Place>) -> (usize, u64) {
    let year = Arc::clone(year);
    let count = places.len();
    let batches = (0..count).step_by(BATCH_MOVEMENTS_MAX).map(move |start| {
        let end = (start + BATCH_MOVEMENTS_MAX).min(places.len());
        let movements = places[start..end].iter();
        pb::PostRequest {
            movements: movements.map(|place| year.movement(*place)).collect(),
        }
    });
    let mut movements = client.movements();
    let answers = movements.post_stream(futures::stream::iter(batches)).await;
    let mut answers = answers.expect("a stream").into_inner();
    let (mut answered, mut repeats, mut position) = (0, 0, 0);
    while let Some(answer) = patiently(answers.message()).await.expect("answers") {
        for outcome in answer.outcomes {
            assert_eq!(outcome.outcome(), pb::Outcome::Applied, "{outcome:?}");
            answered += 1;
            repeats += usize::from(outcome.duplicate);
        }
        position = answer.position;
    }
    assert_eq!(answered, count);
    (repeats, position)
}

/// In a random order by `PostStream`, into four shards; then all of it again, in another order.
async fn shuffled_and_doubled(year: &Arc<Year>) -> (String, String) {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut server = Setup::new().shards(4).rules(RULES).start();
    let client = server.connect().await;
    let mut places = year.places();
    let mut round = async |what: &str, repeats_wanted: usize| {
        places.shuffle(&mut random);
        let started = Instant::now();
        let (repeats, position) = post(&client, year, places.clone()).await;
        assert_eq!(repeats, repeats_wanted);
        let digest = check(&client, &year.expected, position).await;
        tell(what, places.len(), started, &digest);
        digest
    };
    let shuffled = round("embedded, 4 shards, PostStream, shuffled", 0).await;
    let doubled = round("the same again", year.expected.movements).await;
    server.stop();
    (shuffled, doubled)
}

/// Published to the stream itself; followed by an instance that is there from the start, and by
/// one that comes later and has other shards.
async fn through_nats(year: &Arc<Year>) -> (String, String) {
    let nats = NatsServer::start();
    let setup = || Setup::new().nats(&nats.url()).rules(RULES);
    let mut live = setup().shards(1).start();
    let started = Instant::now();
    let (messages, position) = publish(&nats, year).await;
    let live_digest = check(&live.connect().await, &year.expected, position).await;
    let movements = year.expected.movements;
    let what = format!("JetStream, 1 shard, {messages} messages, live");
    tell(&what, movements, started, &live_digest);
    live.stop();

    let started = Instant::now();
    let mut late: Server = setup().shards(4).start();
    let late_digest = check(&late.connect().await, &year.expected, position).await;
    tell(
        "JetStream, 4 shards, from the start of the log",
        movements,
        started,
        &late_digest,
    );
    late.stop();
    (live_digest, late_digest)
}

/// What a producer of one source has gathered for its next message.
struct Producer {
    source: &'static str,
    movements: Vec<pb::Movement>,
    /// How many the next message takes.
    size: usize,
}

/// Publishes every movement on the subject of its source, in messages of all sizes and forms.
/// Answers how many messages, and the last position.
async fn publish(nats: &NatsServer, year: &Year) -> (usize, u64) {
    let client = async_nats::connect(nats.url()).await.expect("connects");
    let context = jetstream::new(client);
    let mut random = StdRng::seed_from_u64(SEED);
    let mut producers =
        [mapping::OPENING_STOCK, mapping::ORDERS, mapping::WAREHOUSE].map(|source| Producer {
            source,
            movements: Vec::new(),
            size: 1,
        });
    let mut acks = VecDeque::new();
    let (mut messages, mut position) = (0, 0);
    let mut full = Vec::new();
    let mut places = year.places().into_iter();
    loop {
        match places.next() {
            Some(place) => {
                let movement = year.movement(place);
                let producer = producers.iter_mut().find(|p| p.source == movement.source);
                let producer = producer.expect("every source has a producer");
                producer.movements.push(movement);
                if producer.movements.len() == producer.size {
                    full.push((producer.source, std::mem::take(&mut producer.movements)));
                    producer.size =
                        [1, 10, 100, 500, BATCH_MOVEMENTS_MAX][random.random_range(0..5)];
                }
            }
            None => {
                for producer in &mut producers {
                    full.push((producer.source, std::mem::take(&mut producer.movements)));
                }
                full.retain(|(_, movements)| !movements.is_empty());
                if full.is_empty() {
                    break;
                }
            }
        }
        for (source, movements) in full.drain(..) {
            let (content_type, payload) = message(movements, random.random_range(0..10));
            let mut headers = HeaderMap::new();
            if let Some(content_type) = content_type {
                headers.insert("Content-Type", content_type);
            }
            let subject = format!("movements.{source}");
            let ack = context.publish_with_headers(subject, headers, payload.into());
            acks.push_back(ack.await.expect("sent"));
            messages += 1;
        }
        while acks.len() > IN_FLIGHT_MAX {
            let ack = acks.pop_front().expect("there are many").into_future();
            position = patiently(ack).await.expect("stored").sequence;
        }
    }
    for ack in acks {
        position = patiently(ack.into_future()).await.expect("stored").sequence;
    }
    (messages, position)
}

/// One message in one of the forms that producers may choose.
fn message(movements: Vec<pb::Movement>, form: u32) -> (Option<&'static str>, Vec<u8>) {
    let event = |movement: &pb::Movement| to_cloud_event_line(movement).expect("an event");
    match (form, movements.as_slice()) {
        (0, [movement]) => (
            Some("application/cloudevents+json"),
            event(movement).into_bytes(),
        ),
        (0, movements) => {
            let events: Vec<String> = movements.iter().map(event).collect();
            let text = format!("[{}]", events.join(","));
            (
                Some("application/cloudevents-batch+json"),
                text.into_bytes(),
            )
        }
        (form, _) => {
            let batch = pb::MovementBatch {
                version: 1,
                movements,
            };
            // Old producers state no type.
            let stated = (form > 2).then_some("application/protobuf");
            (stated, batch.encode_to_vec())
        }
    }
}
