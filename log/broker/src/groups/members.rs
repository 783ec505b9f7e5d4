//! The members of a group, and what the group asks of all of them at every event, kept so that no answer takes a walk:
//! who waits to join, who bears an instance name, what every member supports, whose session ends next.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Deref;

use logmill_protocol::Timestamp;

use crate::clock::Now;
use crate::groups::member::{Member, Protocol};

/// What a member, or an id that was given out, takes in memory beside its texts and bytes, in about.
const MEMBER_BYTES: usize = 512;
/// What a protocol of a member takes beside its name and metadata.
const PROTOCOL_BYTES: usize = 96;

/// Members by id. Reads go to the map; every change goes through a method, which keeps what is derived from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    by_id: BTreeMap<String, Member>,
    by_instance: HashMap<String, String>,
    /// How many members support each protocol.
    supporting: HashMap<String, usize>,
    /// How many members have each rebalance timeout.
    rebalance_timeouts: BTreeMap<i32, usize>,
    expiries: BTreeSet<(Timestamp, String)>,
    joining: usize,
    bytes: usize,
}

impl Deref for Members {
    type Target = BTreeMap<String, Member>;

    fn deref(&self) -> &Self::Target {
        &self.by_id
    }
}

impl FromIterator<(String, Member)> for Members {
    fn from_iter<I: IntoIterator<Item = (String, Member)>>(members: I) -> Self {
        let mut all = Self::default();
        members.into_iter().for_each(|(id, member)| all.insert(id, member));
        all
    }
}

impl Members {
    /// Adds a member, or replaces the one of the same id.
    pub(super) fn insert(&mut self, id: String, member: Member) {
        self.remove(&id);
        if let Some(instance) = &member.instance {
            self.by_instance.entry(instance.clone()).or_insert_with(|| id.clone());
        }
        for name in names(&member) {
            *self.supporting.entry(name.to_owned()).or_default() += 1;
        }
        *self.rebalance_timeouts.entry(member.rebalance_timeout_ms).or_default() += 1;
        self.expiries.extend(member.expires_at.map(|at| (at, id.clone())));
        self.joining += usize::from(member.awaiting_join.is_some());
        self.bytes += bytes_of(&id, &member);
        self.by_id.insert(id, member);
    }

    /// Removes a member.
    pub(super) fn remove(&mut self, id: &str) -> Option<Member> {
        let (id, member) = self.by_id.remove_entry(id)?;
        if let Some(instance) = &member.instance
            && self.by_instance.get(instance) == Some(&id)
        {
            self.by_instance.remove(instance);
        }
        for name in names(&member) {
            release(&mut self.supporting, name);
        }
        if let Some(count) = self.rebalance_timeouts.get_mut(&member.rebalance_timeout_ms) {
            *count -= 1;
            if *count == 0 {
                self.rebalance_timeouts.remove(&member.rebalance_timeout_ms);
            }
        }
        self.joining -= usize::from(member.awaiting_join.is_some());
        self.bytes -= bytes_of(&id, &member);
        if let Some(at) = member.expires_at {
            self.expiries.remove(&(at, id));
        }
        Some(member)
    }

    /// Changes a member; `None` if there is none of the id.
    pub(super) fn update<T>(&mut self, id: &str, change: impl FnOnce(&mut Member) -> T) -> Option<T> {
        let mut member = self.remove(id)?;
        let result = change(&mut member);
        self.insert(id.to_owned(), member);
        Some(result)
    }

    /// Changes every member, in the order of their ids.
    pub(super) fn update_all(&mut self, mut change: impl FnMut(&str, &mut Member)) {
        let members = std::mem::take(self).by_id.into_iter().map(|(id, mut member)| {
            change(&id, &mut member);
            (id, member)
        });
        *self = members.collect();
    }

    /// Keeps the members that `keep` picks.
    pub(super) fn retain(&mut self, keep: impl Fn(&Member) -> bool) {
        *self = std::mem::take(self).by_id.into_iter().filter(|(_, member)| keep(member)).collect();
    }

    /// Restarts a member's session.
    pub(super) fn renew(&mut self, id: &str, now: Now) {
        let Some(member) = self.by_id.get_mut(id) else { return };
        let before = member.expires_at;
        member.renew(now);
        if member.expires_at != before {
            let at = member.expires_at;
            before.map(|before| self.expiries.remove(&(before, id.to_owned())));
            self.expiries.extend(at.map(|at| (at, id.to_owned())));
        }
    }

    /// The id of the member that bears the instance name.
    pub(super) fn bearer(&self, instance: &str) -> Option<&str> {
        self.by_instance.get(instance).map(String::as_str)
    }

    /// How many members wait to join.
    pub(super) fn joining(&self) -> usize {
        self.joining
    }

    /// Whether every member supports the protocol.
    pub(super) fn all_support(&self, protocol: &str) -> bool {
        self.supporting.get(protocol).copied().unwrap_or(0) == self.by_id.len()
    }

    /// The longest rebalance timeout of the members.
    pub(super) fn rebalance_timeout_ms(&self) -> i32 {
        self.rebalance_timeouts.keys().next_back().copied().unwrap_or(0)
    }

    /// When the next session ends.
    pub(super) fn next_expiry(&self) -> Option<Timestamp> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// The members whose sessions have ended.
    pub(super) fn expired(&self, now: Now) -> Vec<String> {
        self.expiries.iter().take_while(|(at, _)| *at <= now.steady).map(|(_, id)| id.clone()).collect()
    }

    /// What the members take in memory, in about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The protocols that a member supports, each once.
fn names(member: &Member) -> HashSet<&str> {
    member.protocols.iter().map(|protocol| protocol.name.as_str()).collect()
}

fn release(counts: &mut HashMap<String, usize>, name: &str) {
    if let Some(count) = counts.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            counts.remove(name);
        }
    }
}

/// What a member takes in memory, in about.
pub(super) fn bytes_of(id: &str, member: &Member) -> usize {
    let Member { client_id, client_host, instance, protocols, assignment, .. } = member;
    texts_bytes([id, client_id, client_host, instance.as_deref().unwrap_or_default()])
        + protocols_bytes(protocols)
        + assignment.len()
}

/// What a member of such texts takes. They are also in what the group has written.
pub(super) fn texts_bytes(texts: [&str; 4]) -> usize {
    MEMBER_BYTES + texts.iter().map(|text| 3 * text.len()).sum::<usize>()
}

pub(super) fn protocols_bytes(protocols: &[Protocol]) -> usize {
    protocols.iter().map(|protocol| PROTOCOL_BYTES + 2 * protocol.name.len() + protocol.metadata.len()).sum()
}

/// Ids that were given out and have not joined (KIP-394), and until when they may.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    by_id: BTreeMap<String, Timestamp>,
    by_time: BTreeSet<(Timestamp, String)>,
}

impl Deref for Pending {
    type Target = BTreeMap<String, Timestamp>;

    fn deref(&self) -> &Self::Target {
        &self.by_id
    }
}

impl Pending {
    pub(super) fn insert(&mut self, id: String, until: Timestamp) {
        self.remove(&id);
        self.by_time.insert((until, id.clone()));
        self.by_id.insert(id, until);
    }

    pub(super) fn remove(&mut self, id: &str) {
        if let Some((id, until)) = self.by_id.remove_entry(id) {
            self.by_time.remove(&(until, id));
        }
    }

    pub(super) fn next_expiry(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }

    pub(super) fn expired(&self, now: Now) -> Vec<String> {
        self.by_time.iter().take_while(|(at, _)| *at <= now.steady).map(|(_, id)| id.clone()).collect()
    }

    /// What the ids take in memory, in about. They are as long as the broker makes them.
    pub(super) fn bytes(&self) -> usize {
        self.by_id.len() * MEMBER_BYTES
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::groups::effects::Waiter;
    use crate::groups::records::MemberMeta;

    /// A member that the number says everything of.
    fn member(n: u64) -> Member {
        let mut member = Member::load(&MemberMeta::local(&format!("i{n}")), None);
        member.instance = n.is_multiple_of(2).then(|| format!("i{n}"));
        let protocol = |name: u64| Protocol { name: format!("p{name}"), metadata: vec![0; n as usize].into() };
        // One of them twice, as a client may send it.
        member.protocols = (0..=n % 3).chain([0]).map(protocol).collect();
        member.rebalance_timeout_ms = (n % 5) as i32;
        member.expires_at = (!n.is_multiple_of(3)).then_some(Timestamp(n as i64));
        member.awaiting_join = (n % 4 == 1).then_some(Waiter(n));
        member
    }

    /// What is kept equals what a walk finds.
    fn check(members: &Members) {
        let fresh: Members = members.by_id.clone().into_iter().collect();
        assert_eq!(members.by_instance, fresh.by_instance);
        assert_eq!(members.supporting, fresh.supporting);
        assert_eq!(members.expiries, fresh.expiries);
        assert_eq!((members.joining, members.bytes), (fresh.joining, fresh.bytes));
        let joining = members.values().filter(|member| member.awaiting_join.is_some()).count();
        assert_eq!(members.joining(), joining);
        for protocol in ["p0", "p1", "p2", "none"] {
            let all = members.values().all(|member| member.supports(protocol));
            assert_eq!(members.all_support(protocol), all, "{protocol}");
        }
        let longest = members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0);
        assert_eq!(members.rebalance_timeout_ms(), longest);
        assert_eq!(members.next_expiry(), members.values().filter_map(|member| member.expires_at).min());
        for (id, member) in members.iter() {
            if let Some(instance) = &member.instance {
                assert_eq!(members.bearer(instance), Some(id.as_str()));
            }
        }
    }

    #[test]
    fn what_is_kept_of_the_members_follows_every_change() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut members = Members::default();
        for _ in 0..2_000 {
            let n = random.u64(..12);
            let id = format!("m{n}");
            let now = Now { steady: Timestamp(random.i64(..9)), wall: Timestamp(0) };
            match random.u8(..7) {
                0 => drop(members.remove(&id)),
                1 => drop(members.update(&id, |member| member.awaiting_join.take())),
                2 => members.renew(&id, now),
                3 => members.update_all(|id, member| member.client_id = id.to_owned()),
                4 if random.u8(..10) == 0 => members.retain(|member| member.instance.is_some()),
                _ => members.insert(id, member(n)),
            }
            check(&members);
            let expired = members.iter().filter(|(_, member)| member.expires_at.is_some_and(|at| at <= now.steady));
            let expired: BTreeSet<_> = expired.map(|(id, _)| id.clone()).collect();
            assert_eq!(members.expired(now).into_iter().collect::<BTreeSet<_>>(), expired);
        }
    }
}
