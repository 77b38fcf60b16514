use super::{
    Act, Action, Pack, Policy, Value,
    act::uid,
    custody_type,
    load::{LIMITS, SCHEMA_PARSED},
};
use crate::{Rule, rules};
use cedar_policy::{
    Authorizer, Decision, Entities, Entity, EntityUid, PolicySet, Request, RestrictedExpression,
};
use palmgate_protocol::{Custody, Purpose, PurposeSet, terminal::Refusal};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// What a store's configuration fixes.
#[derive(Clone, Debug)]
pub struct StoreFacts {
    /// Whether real people enrol here.
    pub production: bool,
    /// Purposes served.
    pub purposes: PurposeSet,
    /// Who can open a reference.
    pub custody: Custody,
    /// Whether a cloud is configured.
    pub escalation: bool,
    /// Listed restricted zones.
    pub zones: Vec<String>,
    /// Numbers that the store chose; the others are the pack's. One that is laxer than the pack
    /// allows is brought back to the pack's bound: [`Pack::check`] refuses it before.
    pub chosen: Vec<(&'static str, i64)>,
}

/// A pack that is in force in a store.
pub struct Law {
    pack: Arc<Pack>,
    purposes: PurposeSet,
    store: Entities,
    authorizer: Authorizer,
    principal: EntityUid,
    resource: EntityUid,
    actions: BTreeMap<Action, EntityUid>,
    nothing: PolicySet,
}

/// What the pack says about an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may be done.
    pub allowed: bool,
    /// The rules that decided: of a denial those that forbid, or those that would have permitted.
    pub rules: Vec<Rule>,
    /// Ids of the policies that decided, in the order of their gates.
    pub policies: Vec<String>,
    /// What a terminal shows: the earliest gate's word, if one has one.
    pub refusal: Option<Refusal>,
    /// Whether every policy that denies has a word for the terminal, so that showing it says
    /// nothing about anybody who was not to be recognised.
    pub speakable: bool,
}

impl Law {
    /// Binds a pack to a store.
    pub fn new(pack: Arc<Pack>, facts: &StoreFacts) -> Self {
        let attributes = attributes(&pack, facts);
        Self { purposes: facts.purposes, ..Self::with_attributes(pack, attributes) }
    }

    pub(super) fn with_attributes(
        pack: Arc<Pack>,
        mut attributes: BTreeMap<String, Value>,
    ) -> Self {
        let limits = LIMITS.iter().filter_map(|name| {
            let value = attributes.remove(&format!("limit.{name}"))?;
            Some(((*name).to_owned(), value.expression()))
        });
        let limits: Vec<_> = limits.collect();
        let mut expressions: HashMap<String, RestrictedExpression> =
            attributes.iter().map(|(name, value)| (name.clone(), value.expression())).collect();
        if let Ok(limits) = RestrictedExpression::new_record(limits) {
            expressions.insert("limit".into(), limits);
        }
        let (principal, resource) = (uid("Gateway", "palmgated"), uid("Store", "store"));
        // Constant expressions evaluate; without its store every policy that reads it denies.
        let entity = Entity::new(resource.clone(), expressions, HashSet::new());
        let store = entity
            .ok()
            .and_then(|entity| Entities::from_entities([entity], Some(&SCHEMA_PARSED)).ok())
            .unwrap_or_else(Entities::empty);
        let actions = Action::ALL.iter().map(|action| (*action, uid("Action", action.as_str())));
        Self {
            pack,
            purposes: PurposeSet::default(),
            store,
            authorizer: Authorizer::new(),
            principal,
            resource,
            actions: actions.collect(),
            nothing: PolicySet::new(),
        }
    }

    /// The pack.
    pub const fn pack(&self) -> &Arc<Pack> {
        &self.pack
    }

    /// Purposes that the store serves.
    pub const fn purposes(&self) -> PurposeSet {
        self.purposes
    }

    /// Decides. Whatever no policy permits is denied, and so is everything that cannot be
    /// evaluated.
    pub fn decide(&self, act: &Act) -> Verdict {
        self.request(act, false)
            .map_or_else(|_| Verdict::unknown(), |request| self.answer(act, &request))
    }

    /// Decides, after checking that the facts are those of the schema.
    ///
    /// # Errors
    /// What is wrong with the facts.
    pub fn decide_checked(&self, act: &Act) -> Result<Verdict, String> {
        let request = self.request(act, true)?;
        Ok(self.answer(act, &request))
    }

    fn request(&self, act: &Act, checked: bool) -> Result<Request, String> {
        let context = act.context().ok_or("a fact is named twice")?;
        let action = self.actions.get(&act.action).cloned().ok_or("no such action")?;
        let schema = checked.then_some(&*SCHEMA_PARSED);
        Request::new(self.principal.clone(), action, self.resource.clone(), context, schema)
            .map_err(|error| error.to_string())
    }

    fn answer(&self, act: &Act, request: &Request) -> Verdict {
        let policies = self.pack.sets.get(&act.action).unwrap_or(&self.nothing);
        let response = self.authorizer.is_authorized(request, policies, &self.store);
        // A policy that cannot be evaluated is passed over by Cedar; here it denies.
        if response.diagnostics().errors().next().is_some() {
            return Verdict::unknown();
        }
        let allowed = response.decision() == Decision::Allow;
        let deciding: Vec<&Policy> =
            response.diagnostics().reason().filter_map(|id| self.pack.policies.get(id)).collect();
        if deciding.is_empty() {
            let permits = policies.policies().filter_map(|p| self.pack.policies.get(p.id()));
            return Verdict::new(allowed, permits.filter(|policy| !policy.forbids).collect());
        }
        Verdict::new(allowed, deciding)
    }
}

impl Verdict {
    fn new(allowed: bool, mut deciding: Vec<&Policy>) -> Self {
        deciding.sort_by_key(|policy| (policy.gate, &policy.id));
        let mut rules = Vec::with_capacity(deciding.len());
        for policy in &deciding {
            if !rules.contains(&policy.rule) {
                rules.push(policy.rule);
            }
        }
        let refusal = deciding.iter().find_map(|policy| policy.refusal).filter(|_| !allowed);
        let speakable = deciding.iter().all(|policy| policy.refusal.is_some());
        let policies = deciding.iter().map(|policy| policy.id.clone()).collect();
        Self { allowed, rules, policies, refusal, speakable }
    }

    fn unknown() -> Self {
        let rules = vec![rules::G_25_2];
        Self { allowed: false, rules, policies: Vec::new(), refusal: None, speakable: false }
    }
}

/// The store as policies see it.
pub(super) fn attributes(pack: &Pack, facts: &StoreFacts) -> BTreeMap<String, Value> {
    let words = |purposes: PurposeSet| purposes.iter().map(Purpose::as_str).collect::<Vec<_>>();
    let mut attributes: BTreeMap<String, Value> = BTreeMap::from([
        ("production".into(), facts.production.into()),
        ("purposes".into(), words(facts.purposes).into()),
        ("custody".into(), facts.custody.as_str().into()),
        ("custody_type".into(), custody_type(facts.custody).into()),
        ("escalation".into(), facts.escalation.into()),
        ("zones".into(), facts.zones.clone().into()),
        ("regions".into(), pack.regions.iter().cloned().collect::<Vec<_>>().into()),
        (
            "kept".into(),
            pack.retention.iter().map(|term| term.item.clone()).collect::<Vec<_>>().into(),
        ),
    ]);
    for name in LIMITS {
        let chosen = facts.chosen.iter().find(|(of, _)| of == name).map(|(_, value)| *value);
        let value = pack
            .number(name)
            .map(|number| chosen.unwrap_or(number.value).clamp(number.least, number.most));
        // A number taken out of the pack bounds nothing any more.
        let value = value.or(chosen).unwrap_or(i64::from(i32::MAX));
        attributes.insert(format!("limit.{name}"), value.into());
    }
    attributes
}
