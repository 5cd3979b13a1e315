use super::*;
use crate::domain::posting::Fact;

struct OneName;

impl LocationNames for OneName {
    fn name(&self, _: Loc) -> &'static str {
        "dc"
    }
}

/// More than one movement can have: a line may be reserved by several.
#[test]
fn what_expired_is_released_however_much_it_is() {
    const EACH: i32 = 1_000_000_000;
    let mut ledger = Ledger::new(PlainBooks::default());
    let (sku, at) = (SkuHash::of("A"), Loc(0));
    let key = Keyer::new().line(LineKind::Order, "r", "1", "A");
    let about = Names {
        sku: "A",
        document: ("r", "1"),
        order: None,
    };
    let reserved = |quantity, expires_us| Posting {
        sku,
        quantity,
        effect: Effect::Line {
            line: key,
            milestone: Milestone::Reserved { at, expires_us },
        },
        fact: Fact::default(),
    };
    for _ in 0..3 {
        ledger.apply(&reserved(EACH, 10), about, &OneName);
    }
    let claimed = |ledger: &Ledger<PlainBooks>| {
        let (balances, _) = ledger.books().cell(sku, "A", at);
        balances[Account::Reserved]
    };
    assert_eq!(claimed(&ledger), 3 * i64::from(EACH));
    ledger.advance(10, &OneName);
    assert_eq!(claimed(&ledger), 0);
    // What is reserved anew brings nothing of that back.
    let [again, other] = [5, 7].map(|units| Claims::from_iter([(at, units)]));
    let other = (
        Keyer::new().line(LineKind::Order, "O", "2", "A"),
        other,
        about,
    );
    let lines = [(key, again, about), other].into_iter();
    ledger.reserve(sku, "A", NEVER_US, lines, &OneName);
    assert_eq!(claimed(&ledger), 12);
}
