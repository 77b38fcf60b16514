//! Properties of the packs proven for every act and every store, with Cedar's symbolic compiler and
//! the SMT solver cvc5. Part of `cargo xtask test`; by itself:
//!
//! ```text
//! apt-get install cvc5
//! cargo test --release -p palmgate-policy --features proof --test proofs
//! ```
//!
//! `tests/properties.rs` shows the same on every run, by trying every combination of facts.
#![allow(clippy::unwrap_used)]

use cedar_policy::{PolicySet, RequestEnv, Schema};
use cedar_policy_symcc::{CedarSymCompiler, CompiledPolicySet, solver::LocalSolver};

const SCHEMA: &str = include_str!("../../../config/packs/schema.cedarschema");
const UNION: &str = concat!(
    include_str!("../../../config/packs/eu-gdpr/rules.cedar"),
    include_str!("../../../config/packs/eu-gdpr/office.cedar")
);
const FRANCE: &str = include_str!("../../../config/packs/fr-cnil/rules.cedar");

/// No recognition without a live consent for the purpose, or the staff basis; a right needs one.
const RECOGNISED: &str = r#"
permit (principal, action == Action::"recognise", resource) when {
  context.now < context.lease_ends && context.above_threshold && context.rivals <= 0 &&
  (if context.right
  then context.now < context.consent_ends || context.now < context.authorisation_ends
  else !context.paused && context.now < context.record_ends && (
    if context.purpose == "staff"
    then context.now < context.authorisation_ends && resource.zones.contains(context.zone)
    else context.now < context.consent_ends && resource.purposes.contains(context.purpose)
  ))
};"#;

/// No escalation without claim, roaming consent and the person's wish, and none out of the regions.
const ESCALATED: &str = r#"
permit (principal, action == Action::"escalate", resource) when {
  context.claim == "valid" && context.roaming && context.asked &&
  resource.regions.contains(context.region)
};"#;

struct Solver {
    compiler: CedarSymCompiler<LocalSolver>,
    schema: Schema,
}

impl Solver {
    fn new() -> Self {
        let solver = LocalSolver::cvc5().expect("cvc5 is installed: apt-get install cvc5");
        let schema = Schema::from_cedarschema_str(SCHEMA).unwrap().0;
        Self { compiler: CedarSymCompiler::new(solver).unwrap(), schema }
    }

    fn environment(&self, action: &str) -> RequestEnv {
        let mut environments = self.schema.request_envs();
        environments.find(|env| env.action().id().unescaped() == action).unwrap()
    }

    fn compiled(&self, text: &str, env: &RequestEnv) -> CompiledPolicySet {
        let policies: PolicySet = text.parse().unwrap();
        CompiledPolicySet::compile(&policies, env, &self.schema).unwrap()
    }

    /// Whether everything that `policies` permit is permitted by `specification`.
    async fn implies(&mut self, action: &str, policies: &str, specification: &str) -> bool {
        let env = self.environment(action);
        let (one, other) = (self.compiled(policies, &env), self.compiled(specification, &env));
        self.compiler.check_implies_opt(&one, &other).await.unwrap()
    }

    /// Whether nothing is permitted by both.
    async fn disjoint(&mut self, action: &str, policies: &str, others: &str) -> bool {
        let env = self.environment(action);
        let (one, other) = (self.compiled(policies, &env), self.compiled(others, &env));
        self.compiler.check_disjoint_opt(&one, &other).await.unwrap()
    }
}

fn france() -> String {
    format!("{UNION}{FRANCE}")
}

#[tokio::test]
async fn nobody_is_recognised_without_live_consent_or_the_staff_basis() {
    let mut solver = Solver::new();
    assert!(solver.implies("recognise", &france(), RECOGNISED).await);
    let weak = france().replace(
        "resource.purposes.contains(context.purpose) && context.now < context.consent_ends",
        "resource.purposes.contains(context.purpose)",
    );
    assert!(weak != france() && !solver.implies("recognise", &weak, RECOGNISED).await);
}

#[tokio::test]
async fn nothing_is_escalated_without_claim_and_consent_to_roam() {
    let mut solver = Solver::new();
    assert!(solver.implies("escalate", &france(), ESCALATED).await);
    let weak = UNION.replace("context.roaming && context.asked };", "context.asked };");
    assert!(weak != UNION && !solver.implies("escalate", &weak, ESCALATED).await);
}

/// The prohibitions of the Union's pack, as if they permitted.
fn prohibitions() -> String {
    let policies = UNION.split("@id(").skip(1);
    let forbids = policies.filter(|policy| policy.contains("\nforbid ("));
    forbids
        .flat_map(|policy| ["@id(".to_owned(), policy.replace("\nforbid (", "\npermit (")])
        .collect()
}

#[tokio::test]
async fn what_the_union_forbids_france_never_permits() {
    let (mut solver, forbidden) = (Solver::new(), prohibitions());
    let actions: Vec<String> =
        solver.schema.request_envs().map(|env| env.action().id().unescaped().to_owned()).collect();
    assert_eq!(actions.len(), palmgate_policy::pack::Action::ALL.len());
    for action in actions {
        assert!(solver.disjoint(&action, &france(), &forbidden).await, "{action}");
    }
    // France on its own permits what the Union's rivals rule forbids.
    assert!(!solver.disjoint("recognise", FRANCE, &forbidden).await);
}
