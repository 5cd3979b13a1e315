//! A real retailer's books (Online Retail, UCI 352), reconciled with a snapshot as of a moment in
//! their midst that has known errors, while later movements go on and some earlier ones arrive
//! late.
//!
//! The truth is computed from the CSV here, on purpose without the mapping that makes the
//! movements. `--nocapture` shows how many false alarms comparing with the books now would have
//! raised. `SELLABLE_TEST_ROWS=541909` takes all rows.

use std::{collections::BTreeMap, path::Path};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use sellable::{
    limits::BATCH_MOVEMENTS_MAX,
    proto::v1::{self as pb, ReconciliationAction as Action, ReconciliationVerdict as Verdict},
};

use crate::{
    mapping::{self, LOCATION, Row},
    server::{Client, Setup},
    snapshots::{Compared, compare, correcting, header, line, variances},
};

const SEED: u64 = 9;
/// Rows of the bounded run.
const ROWS: usize = 60_000;
/// Errors of a few units that are planted.
const PLANTED: usize = 40;
/// Rows, more or less, that arrive after the comparison.
const TOO_LATE: usize = 120;

type Units = BTreeMap<String, i64>;

/// By how much a row changes what lies on the shelf, by hand; `None`: it is not about goods.
fn change(row: &Row) -> Option<i64> {
    let sku = row.sku.as_str();
    let digits = sku.chars().take_while(char::is_ascii_digit).count();
    let letters = sku.chars().skip(digits).all(|c| c.is_ascii_uppercase());
    if !(digits == 5 && letters || sku.starts_with("DCGS") || sku == "PADS") {
        return None;
    }
    Some(if row.invoice.starts_with('C') {
        row.quantity.abs()
    } else if row.quantity < 0 || (row.is_free && !row.has_customer) {
        row.quantity
    } else {
        -row.quantity
    })
}

/// Adds what rows do.
fn add<'r>(units: &mut Units, rows: impl Iterator<Item = &'r Row>) {
    for row in rows {
        if let Some(change) = change(row) {
            *units.entry(row.sku.clone()).or_default() += change;
        }
    }
}

async fn post(client: &Client, movements: Vec<pb::Movement>) {
    for batch in movements.chunks(BATCH_MOVEMENTS_MAX) {
        client.post(batch.to_vec()).await;
    }
}

fn movements<'r>(rows: impl Iterator<Item = &'r Row>) -> Vec<pb::Movement> {
    rows.flat_map(Row::movements).collect()
}

/// What a report says to be variance, by SKU.
fn reported(compared: &Compared) -> Units {
    let lines = compared.lines.iter();
    let variances =
        lines.filter(|own| !matches!(own.verdict(), Verdict::Matched | Verdict::Timing));
    variances
        .map(|own| (own.sku.clone(), own.variance))
        .collect()
}

async fn open(client: &Client) -> Units {
    let open = variances(client).await.into_iter();
    open.map(|(sku, _, units)| (sku, units)).collect()
}

fn sum(one: &Units, other: &Units) -> Units {
    let mut sum = one.clone();
    for (sku, units) in other {
        *sum.entry(sku.clone()).or_default() += units;
    }
    sum.retain(|_, units| *units != 0);
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_the_planted_errors_are_reported() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(mapping::DATA_FILE);
    assert!(
        path.is_file(),
        "this test needs the Online Retail data set (UCI 352) as {}, which is not there",
        path.display()
    );
    let rows_max = std::env::var("SELLABLE_TEST_ROWS");
    let rows_max = rows_max.map_or(ROWS, |text| text.parse().expect("a number"));
    let rows = mapping::read(&path, rows_max, |_| ()).expect("the rows");
    let mut random = StdRng::seed_from_u64(SEED);

    // The moment, and the truth of it.
    let as_of = rows[rows.len() / 2].seconds;
    let opening = mapping::opening_stock(&rows);
    let mut truth: Units = opening
        .iter()
        .map(|own| (own.sku.clone(), own.quantity))
        .collect();
    add(&mut truth, rows.iter().filter(|row| row.seconds <= as_of));

    // Of what is before it, some arrives late, and of that a part after the comparison.
    let (before, after): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.seconds <= as_of);
    let (mut timely, mut late, mut too_late) = (Vec::new(), Vec::new(), Vec::new());
    let rows_before = before.len();
    for row in before {
        // Some 3 in 100 late, and some `TOO_LATE` of all.
        match random.random_range(0..rows_before) {
            at if at < TOO_LATE => too_late.push(row),
            at if at < TOO_LATE + rows_before * 3 / 100 => late.push(row),
            _ => timely.push(row),
        }
    }
    let mut missing = Units::new();
    add(&mut missing, too_late.iter().copied());
    missing.retain(|_, units| *units != 0);
    assert!(missing.len() > PLANTED, "late facts have to matter");

    // The snapshot: the truth, with errors that are planted.
    let mut stated = truth.clone();
    let mut planted = Units::new();
    let mut skus: Vec<String> = truth.keys().cloned().collect();
    skus.shuffle(&mut random);
    for sku in &skus[..PLANTED] {
        let units = random.random_range(1..=6) * if random.random() { 1 } else { -1 };
        *stated.get_mut(sku).expect("one of them") += units;
        planted.insert(sku.clone(), units);
    }
    // One that the books lack, one that the snapshot lacks, and one that is far off.
    stated.insert("NOT-OURS".into(), 12);
    planted.insert("NOT-OURS".into(), 12);
    let stocked = |sku: &&String| truth[*sku] > 0;
    let lacking = skus[PLANTED..].iter().find(stocked).expect("stock").clone();
    planted.insert(lacking.clone(), -truth[&lacking]);
    stated.remove(&lacking);
    let far = skus.last().expect("SKUs");
    *stated.get_mut(far).expect("one of them") += 5_000;
    planted.insert(far.clone(), 5_000);
    let lines: Vec<_> = stated
        .iter()
        .map(|(sku, units)| line(sku, LOCATION, *units))
        .collect();

    let server = Setup::new().shards(2).start();
    let client = server.connect().await;
    post(&client, opening).await;
    // In disorder, and with half of what came after the moment.
    let (sooner, later) = after.split_at(after.len() / 2);
    let mut first: Vec<&Row> = timely.iter().chain(sooner).copied().collect();
    first.shuffle(&mut random);
    post(&client, movements(first.into_iter())).await;
    post(&client, movements(late.iter().copied())).await;

    // The rest of the later ones comes while the snapshot is compared.
    let whole = || pb::SnapshotHeader {
        scope: vec!["*".into()],
        ..header("night", as_of)
    };
    let (_, compared) = tokio::join!(
        post(&client, movements(later.iter().copied())),
        compare(&client, whole(), &lines)
    );
    let compared = compared.expect("compared");
    // What the books lack at the moment because it is on its way, the snapshot has.
    let expected = sum(&planted, &missing);
    assert_eq!(reported(&compared), expected);
    assert_eq!(open(&client).await, expected);
    let summary = compared.summary();
    assert_eq!(summary.variance, expected.len() as u64);
    assert_eq!(summary.matched + summary.variance, summary.cells);
    assert_eq!(
        (summary.missing_in_books, summary.missing_in_snapshot),
        (1, 1)
    );
    let largest: Vec<i64> = compared
        .lines
        .iter()
        .map(|own| own.variance.abs())
        .collect();
    assert!(largest.is_sorted_by(|one, next| one >= next) && largest[0] >= 4_990);
    println!(
        "{} movements, {} cells as of {}: {} variances, of which {} planted and {} still on their \
         way; compared with the books now: {} cells, {} of them false alarms",
        client.status().await.movements_applied,
        summary.cells,
        compared.report.as_of.as_ref().expect("a moment"),
        summary.variance,
        planted.len(),
        expected.len() - planted.len(),
        summary.without_as_of,
        summary.false_alarms_avoided,
    );
    assert!(
        summary.false_alarms_avoided > 10 * summary.variance,
        "the books went on for as long again"
    );

    // What was on its way arrives, and those variances close by themselves.
    let mut too_late = movements(too_late.into_iter());
    too_late.shuffle(&mut random);
    post(&client, too_late).await;
    assert_eq!(open(&client).await, planted);
    let again = compare(&client, whole(), &lines).await.expect("compared");
    assert_eq!(reported(&again), planted);

    // What is small is corrected, what is large waits for a person, and then nothing differs.
    let limit = 20;
    let corrected = pb::SnapshotHeader {
        scope: vec!["*".into()],
        ..correcting("night", as_of, limit)
    };
    let corrected = compare(&client, corrected, &lines).await.expect("compared");
    for own in &corrected.lines {
        let expected = match own.variance.abs() <= limit {
            true => Action::Corrected,
            false => Action::Held,
        };
        assert_eq!(own.action(), expected, "{own:?}");
    }
    let large: Units = planted
        .into_iter()
        .filter(|(_, units)| units.abs() > limit)
        .collect();
    assert_eq!(open(&client).await, large);
    let approve = pb::ApproveRequest {
        report: "night".into(),
        actor: "finance".into(),
        ..pb::ApproveRequest::default()
    };
    let approved = client
        .reconciliation()
        .approve(approve)
        .await
        .expect("approved");
    assert_eq!(approved.into_inner().corrected, large.len() as u64);
    assert!(open(&client).await.is_empty());
    let last = compare(&client, whole(), &lines).await.expect("compared");
    assert_eq!(last.summary().variance, 0);
    client.digest(0).await;
}
