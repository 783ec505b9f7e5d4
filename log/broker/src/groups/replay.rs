//! What the log says of groups, applied as it is written and when it is replayed; and written anew to keep it short.

use logmill_protocol::ProducerId;

use crate::clock::Now;
use crate::groups::group::Group;
use crate::groups::records::GroupRecord;
use crate::groups::state::Groups;

impl Groups {
    /// Applies a record, which is part of `producer`'s open transaction if there is one.
    pub fn apply(&mut self, record: &GroupRecord, producer: Option<ProducerId>) {
        let name = record.group();
        let group = self.groups.entry(name.to_owned()).or_insert_with(|| Group::new(name));
        match (record, producer) {
            (GroupRecord::Group { value: Some(meta), .. }, _) => group.load(meta),
            (GroupRecord::Group { value: None, .. }, _) => group.unload(),
            (GroupRecord::Offset { partition, value, .. }, Some(producer)) => {
                group.in_transactions.entry(producer).or_default().insert(partition.clone(), value.clone());
                self.pending_in.entry(producer).or_default().insert(name.to_owned());
            }
            (GroupRecord::Offset { partition, value: Some(value), .. }, None) => {
                group.offsets.insert(partition.clone(), value.clone());
            }
            (GroupRecord::Offset { partition, value: None, .. }, None) => {
                group.offsets.remove(partition);
                group.in_transactions.values_mut().for_each(|pending| drop(pending.remove(partition)));
            }
        }
        self.settle(name);
    }

    /// Applies the marker that ends `producer`'s transaction. Returns whether any offset was pending.
    pub fn end_transaction(&mut self, producer: ProducerId, commit: bool) -> bool {
        let Some(groups) = self.pending_in.remove(&producer) else { return false };
        for name in groups {
            let Some(group) = self.groups.get_mut(&name) else { continue };
            let pending = group.in_transactions.remove(&producer).unwrap_or_default();
            for (partition, value) in pending.into_iter().filter(|_| commit) {
                match value {
                    Some(value) => group.offsets.insert(partition, value),
                    None => group.offsets.remove(&partition),
                }
            }
            self.settle(&name);
        }
        true
    }

    /// After replay: drops the members that cannot have survived, and gives every other a full session from `now` on,
    /// since it was the broker that was away, not they.
    pub fn start(&mut self, now: Now) {
        let names: Vec<String> = self.groups.keys().cloned().collect();
        for name in names {
            if let Some(group) = self.groups.get_mut(&name) {
                group.forget_local_members();
                group.members.update_all(|_, member| member.renew(now));
            }
            self.settle(&name);
        }
    }

    /// Whether offsets of any open transaction are pending.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending_in.is_empty()
    }

    /// Records that say all there is to say about the groups that `select` picks.
    #[must_use]
    pub fn snapshot(&self, select: impl Fn(&str) -> bool) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        for (name, group) in self.groups.iter().filter(|(name, _)| select(name)) {
            if let Some(meta) = &group.written {
                records.push(GroupRecord::Group { group: name.clone(), value: Some(meta.clone()) });
            }
            records.extend(group.offsets.iter().map(|(partition, value)| GroupRecord::Offset {
                group: name.clone(),
                partition: partition.clone(),
                value: Some(value.clone()),
            }));
        }
        records
    }

    /// How many records [`Groups::snapshot`] of all groups holds.
    #[must_use]
    pub fn live_records(&self) -> usize {
        self.groups.values().map(|group| group.offsets.len() + 1).sum()
    }
}
