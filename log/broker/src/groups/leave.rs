//! Leaving, by the members themselves or by an administrator who names their instances.

use crate::clock::Now;
use crate::groups::config::GroupConfig;
use crate::groups::effects::Effects;
use crate::groups::error::GroupError;
use crate::groups::group::{Group, GroupState};
use crate::groups::member::Member;

/// Who is to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaver {
    /// The member's id; empty where an administrator names the instance only.
    pub member: String,
    /// The instance name.
    pub instance: Option<String>,
}

impl Group {
    /// Removes members and says of each whether it was one; then the others rebalance.
    pub(super) fn leave(
        &mut self,
        leavers: &[Leaver],
        config: &GroupConfig,
        now: Now,
        effects: &mut Effects,
    ) -> Vec<Result<(), GroupError>> {
        let results: Vec<_> = leavers.iter().map(|leaver| self.leave_one(leaver, effects)).collect();
        if results.iter().any(Result::is_ok) {
            match self.state {
                GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(config, now, effects),
                GroupState::PreparingRebalance => self.maybe_complete_join(now, effects),
                GroupState::Empty => {}
            }
        }
        results
    }

    fn leave_one(&mut self, leaver: &Leaver, effects: &mut Effects) -> Result<(), GroupError> {
        let instance = leaver.instance.as_deref();
        let member = match (leaver.member.is_empty(), instance) {
            (true, instance) => {
                let bearer = instance.and_then(|instance| self.bearer(instance));
                bearer.map(str::to_owned).ok_or(GroupError::UnknownMember)?
            }
            (false, _) if self.pending.contains_key(&leaver.member) => leaver.member.clone(),
            (false, instance) => {
                self.check_member(&leaver.member, instance)?;
                leaver.member.clone()
            }
        };
        if self.members.get(&member).is_some_and(Member::is_local) {
            return Err(GroupError::UnknownMember);
        }
        tracing::info!(group = self.name, member, "a member leaves");
        self.remove(&member, effects);
        Ok(())
    }
}
