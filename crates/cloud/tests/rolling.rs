//! Processes over one database are replaced one after the other while stores go on.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{
    Gateway, apart,
    cluster::Cluster,
    pay_and_roam,
    people::Person,
    process::{Process, Tenant},
};
use palmgate_protocol::{Purpose, cloud::Resolution, encode};
use reqwest::{Method, Response, StatusCode};
use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const LIMITS: &str = "[limits]\nrequests_per_minute = 1000000\nresolutions_per_minute = 1000000\n\
                      tries_per_claim_per_hour = 1000000\n";

/// Where the processes are now.
struct Places(Mutex<[SocketAddr; 2]>);

impl Places {
    /// Asks one process, and the other one when that one is going: what a store behind any
    /// balancer, or with two addresses, does.
    async fn post(&self, store: &Gateway, path: &str, body: &[u8]) -> Response {
        let addresses = *self.0.lock().unwrap();
        for address in addresses {
            let url = store.request_to(address, Method::POST, path);
            let request = url.header("content-type", "application/cbor").body(body.to_vec());
            match request.timeout(Duration::from_secs(20)).send().await {
                Ok(answer) if answer.status() != StatusCode::SERVICE_UNAVAILABLE => return answer,
                Ok(_) | Err(_) => {}
            }
        }
        panic!("nobody answered {path}");
    }
}

#[tokio::test]
async fn processes_replaced_one_after_the_other_leave_no_question_unanswered() {
    let tenant = Tenant::new(Cluster::shared(), LIMITS);
    let state = tenant.state();
    let mut processes = [Process::start(&state, &[]), Process::start(&state, &[])];
    let mut lyon = tenant.store("lyon", "main", processes[0].address).await;
    let paris = tenant.store("paris", "main", processes[1].address).await;
    let (known, stranger) = (Person::new(), Person::new());
    lyon.enrol(&known, pay_and_roam()).await;
    let places = Places(Mutex::new([processes[0].address, processes[1].address]));
    let done = AtomicBool::new(false);
    let asking = async {
        let mut answers = 0_u32;
        while !done.load(Ordering::Relaxed) {
            for (palm, expected) in [(&known, true), (&stranger, false)] {
                let query = encode(&paris.query(&known, Purpose::Pay, palm));
                let answer = places.post(&paris, "/v1/resolve/probe", &query).await;
                let (answer, _) = common::resolution(answer).await;
                assert_eq!(matches!(answer, Resolution::Found { .. }), expected);
                answers += 1;
            }
        }
        answers
    };
    let enrolling = async {
        let mut people = Vec::new();
        while !done.load(Ordering::Relaxed) {
            let person = Person::new();
            let registration = encode(&lyon.operator(&person, pay_and_roam()));
            let answer = places.post(&lyon, "/v1/registrations", &registration).await;
            assert_eq!(answer.status(), StatusCode::NO_CONTENT);
            people.push(person);
        }
        people
    };
    let rolling = async {
        for number in [0, 1, 0, 1] {
            tokio::time::sleep(Duration::from_millis(500)).await;
            // The others are asked first from now on, as a balancer is told before a process ends.
            places.0.lock().unwrap().swap(0, 1);
            let process = &mut processes[number];
            assert!(apart(|| process.stop()), "it lets requests end and ends well");
            *process = apart(|| Process::start(&state, &[]));
            let address = process.address;
            let mut places = places.0.lock().unwrap();
            places[1] = address;
        }
        done.store(true, Ordering::Relaxed);
    };
    let (answers, people, ()) = tokio::join!(asking, enrolling, rolling);
    assert!(answers > 10 && people.len() > 10, "{answers} {}", people.len());
    lyon.address = places.0.lock().unwrap()[0];
    lyon.fetch().await;
    assert!(people.iter().all(|person| lyon.has(person)), "nothing acknowledged is lost");
}
