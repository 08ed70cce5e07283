//! Which connections or syncs a list shows: both are asked for in the same way.

use super::list_fields::ListFields;

/// The statuses that a sync may have. Clients know more; none of those would ever match.
pub(super) const SYNC_STATUSES: [(&str, &str); 6] = [
    ("PENDING", "PENDING"),
    ("ACTIVE", "ACTIVE"),
    ("SUSPENDED", "SUSPENDED"),
    ("FAILED", "FAILED"),
    ("COMPLETED", "COMPLETED"),
    (UNREADABLE, UNREADABLE),
];

/// The statuses with which a connection may be stored.
pub(super) const CONNECTION_STATUSES: [(&str, &str); 4] =
    [("ACTIVE", "ACTIVE"), ("SUSPENDED", "SUSPENDED"), ("FAILED", "FAILED"), ("ARCHIVED", "ARCHIVED")];

/// The status of what cannot be read. Clients know it: one that they do not know could make them refuse the whole list.
pub(super) const UNREADABLE: &str = "UNKNOWN";

/// The longest owner, in characters.
const OWNER_CHARS_MAX: usize = 200;

/// What a list asks for; what it leaves out does not matter.
pub(super) struct ListFilter {
    owner: Option<String>,
    status: Option<&'static str>,
    is_active: Option<bool>,
}

impl ListFilter {
    /// Reads `owner`, the field that says to whom the items belong; `status`, one of `statuses`; `is_active`.
    pub(super) fn read(
        fields: &mut ListFields<'_>,
        owner: &'static str,
        statuses: &[(&'static str, &'static str)],
    ) -> Self {
        Self {
            owner: fields.text(owner, 1, OWNER_CHARS_MAX),
            status: fields.choice("status", statuses),
            is_active: fields.flag("is_active"),
        }
    }

    /// To whom the items belong that are asked for.
    pub(super) fn owner(&self) -> Option<String> {
        self.owner.clone()
    }

    /// The status that is asked for.
    pub(super) fn status(&self) -> Option<&'static str> {
        self.status
    }

    /// Whether items are asked for that are, or are not, switched on.
    pub(super) fn is_active(&self) -> Option<bool> {
        self.is_active
    }

    /// Whether it matters how an item stands.
    pub(super) fn asks_how_it_stands(&self) -> bool {
        self.status.is_some() || self.is_active.is_some()
    }

    /// Whether an item that stands so matches.
    pub(super) fn stands_as(&self, status: &str, is_active: bool) -> bool {
        self.status.is_none_or(|wanted| wanted == status) && self.is_active.is_none_or(|wanted| wanted == is_active)
    }
}
