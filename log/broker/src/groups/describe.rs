//! What groups look like from outside: for listings and descriptions.

use bytes::Bytes;

use crate::groups::group::{Group, GroupState};
use crate::groups::state::Groups;
use crate::types::GroupInfo;

/// A group in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    /// Its name.
    pub group: String,
    /// What kind of group it is; empty for one that only keeps offsets.
    pub protocol_type: String,
    /// The state it is in.
    pub state: GroupState,
}

/// A group with its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// What kind of group it is; empty for one that only keeps offsets.
    pub protocol_type: String,
    /// How partitions are assigned; empty unless the group is stable.
    pub protocol: String,
    /// The state it is in.
    pub state: GroupState,
    /// The members.
    pub members: Vec<MemberDescription>,
}

impl GroupDescription {
    /// What the members tell of themselves and are assigned, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let member = |member: &MemberDescription| {
            let texts = member.member.len() + member.client_id.len() + member.client_host.len();
            texts + member.metadata.len() + member.assignment.len()
        };
        self.members.iter().map(member).sum()
    }
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    /// Its id.
    pub member: String,
    /// Its instance name.
    pub instance: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// What it told the others; empty unless the group is stable.
    pub metadata: Bytes,
    /// What it is assigned; empty unless the group is stable.
    pub assignment: Bytes,
}

impl Group {
    fn describe(&self) -> GroupDescription {
        let is_stable = self.state == GroupState::Stable;
        let protocol = self.protocol.as_deref().filter(|_| is_stable).unwrap_or_default();
        let members = self.members.iter().map(|(id, member)| MemberDescription {
            member: id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if is_stable { member.metadata(protocol) } else { Bytes::new() },
            assignment: if is_stable { member.assignment.clone() } else { Bytes::new() },
        });
        GroupDescription {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.to_owned(),
            state: self.state,
            members: members.collect(),
        }
    }
}

impl Groups {
    /// A group with its members; `None` if there is none of the name.
    #[must_use]
    pub fn describe(&self, name: &str) -> Option<GroupDescription> {
        self.groups.get(name).map(Group::describe)
    }

    /// All groups, by name.
    #[must_use]
    pub fn list(&self) -> Vec<GroupListing> {
        let listing = |group: &Group| GroupListing {
            group: group.name.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state,
        };
        let mut listings: Vec<_> = self.groups.values().map(listing).collect();
        listings.sort_unstable_by(|a, b| a.group.cmp(&b.group));
        listings
    }

    /// What a group is, in short.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<GroupInfo> {
        let group = self.groups.get(name)?;
        Some(GroupInfo {
            group: name.to_owned(),
            generation: group.generation,
            members: group.members.keys().cloned().collect(),
            offsets: group.offsets.iter().map(|(partition, value)| (partition.clone(), value.offset)).collect(),
        })
    }
}
