//! The search index of the cloud beside pgvector: recall and latency on the same embeddings.
//!
//! `PGVECTOR_BIN=DIR cargo bench -p palmgate-cloud --bench pgvector -- ROWS`, where DIR has the
//! programs of a PostgreSQL with the extension. pgvector keeps embeddings in the clear in its pages,
//! its log and its backups, where an erasure does not reach them: it is measured, and not used.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails stops")]
#![allow(dead_code, reason = "shared with the tests")]

#[path = "../tests/common/cluster.rs"]
mod cluster;

use cluster::Cluster;
use palmgate_cloud::synthetic::Synthetic;
use palmgate_gallery::{RowId, Shard, Vector};
use palmgate_protocol::{EMBEDDING_DIMENSIONS, Embedding};
use postgres::{Client, NoTls};
use std::{
    fmt::Write as _,
    io::Write as _,
    time::{Duration, Instant},
};

const QUESTIONS: u64 = 200;

fn main() {
    if std::env::var_os("PGVECTOR_BIN").is_none() {
        println!("PGVECTOR_BIN names no PostgreSQL with pgvector: nothing is compared");
        return;
    }
    let rows = std::env::args().skip(1).find_map(|it| it.parse().ok()).unwrap_or(100_000);
    let questions: Vec<(u64, Embedding)> = (0..QUESTIONS)
        .map(|number| number * 7919 % rows)
        .map(|who| (who, Synthetic(who).probe().embedding))
        .collect();
    let index = Shard::<EMBEDDING_DIMENSIONS>::new(1 << 24);
    let begun = Instant::now();
    for row in 0..rows {
        let vector = Vector::from_components(&Synthetic(row).template().embedding).unwrap();
        index.insert(RowId(row), &vector, &()).unwrap();
    }
    let built = begun.elapsed();
    let ours = asked(&questions, |embedding| {
        let vector = Vector::from_components(embedding).unwrap();
        index.nearest(&[&vector], 32).unwrap()[0].first().map(|hit| hit.row.0)
    });
    report("this index, exact", built, &ours);
    drop(index);

    let cluster = Cluster::start(&["fsync=off", "shared_buffers=1GB", "maintenance_work_mem=1GB"]);
    let mut client = Client::connect(&cluster.admin_url("postgres"), NoTls).unwrap();
    let begun = Instant::now();
    client
        .batch_execute(&format!(
            "CREATE EXTENSION vector; CREATE TABLE e (id bigint, v vector({EMBEDDING_DIMENSIONS}))"
        ))
        .unwrap();
    let mut copy = client.copy_in("COPY e FROM STDIN").unwrap();
    for row in 0..rows {
        writeln!(copy, "{row}\t{}", text(&Synthetic(row).template().embedding)).unwrap();
    }
    copy.finish().unwrap();
    client.batch_execute("VACUUM ANALYZE e").unwrap();
    let filled = begun.elapsed();
    let ask = |client: &mut Client| {
        asked(&questions, |embedding| {
            let sql = format!("SELECT id FROM e ORDER BY v <=> '{}' LIMIT 32", text(embedding));
            let rows = client.query(&sql, &[]).unwrap();
            rows.first().map(|row| row.get::<_, i64>(0).cast_unsigned())
        })
    };
    let exact = ask(&mut client);
    report("pgvector, exact", filled, &exact);
    let begun = Instant::now();
    client.batch_execute("CREATE INDEX ON e USING hnsw (v vector_cosine_ops)").unwrap();
    let indexed = begun.elapsed();
    for effort in [40, 200] {
        client.batch_execute(&format!("SET hnsw.ef_search = {effort}")).unwrap();
        let found = ask(&mut client);
        report(&format!("pgvector, HNSW, ef_search {effort}"), indexed, &found);
    }
}

struct Found {
    right: usize,
    times: Vec<Duration>,
}

fn asked(
    questions: &[(u64, Embedding)],
    mut nearest: impl FnMut(&Embedding) -> Option<u64>,
) -> Found {
    let (mut right, mut times) = (0, Vec::new());
    for (who, embedding) in questions {
        let begun = Instant::now();
        let found = nearest(embedding);
        times.push(begun.elapsed());
        right += usize::from(found == Some(*who));
    }
    times.sort_unstable();
    Found { right, times }
}

fn report(name: &str, built: Duration, found: &Found) {
    let at = |percent: usize| {
        let place = (found.times.len() * percent).div_ceil(100).max(1) - 1;
        found.times[place].as_secs_f64() * 1000.0
    };
    println!(
        "{name:32} built in {:>6.1} s, p50 {:>7.2} ms, p99 {:>7.2} ms, the right row first {} of {}",
        built.as_secs_f64(),
        at(50),
        at(99),
        found.right,
        found.times.len()
    );
}

fn text(embedding: &Embedding) -> String {
    let mut text = String::from("[");
    for (number, component) in embedding.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        write!(text, "{comma}{component}").unwrap();
    }
    text.push(']');
    text
}
