//! Which connections or syncs a list shows: both are asked for in the same way.

use super::list_fields::ListFields;

/// Every status that the client knows, for filters of lists.
const STATUSES: [(&str, &str); 16] = [
    ("PENDING", "PENDING"),
    ("QUEUED", "QUEUED"),
    ("IN_PROGRESS", "IN_PROGRESS"),
    ("PROCESSING", "PROCESSING"),
    ("COMPLETED", "COMPLETED"),
    ("COMPLETED_WITH_ERRORS", "COMPLETED_WITH_ERRORS"),
    ("FAILED", "FAILED"),
    ("CANCELED", "CANCELED"),
    ("INTERRUPTED", "INTERRUPTED"),
    ("UNKNOWN", "UNKNOWN"),
    ("SKIPPED", "SKIPPED"),
    ("DRAFT", "DRAFT"),
    ("ACTIVE", "ACTIVE"),
    ("ARCHIVED", "ARCHIVED"),
    ("SUSPENDED", "SUSPENDED"),
    ("DEACTIVATED", "DEACTIVATED"),
];

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
    /// Reads `owner`, the field that says to whom the items belong; `status`; `is_active`.
    pub(super) fn read(fields: &mut ListFields<'_>, owner: &'static str) -> Self {
        Self {
            owner: fields.text(owner, 1, OWNER_CHARS_MAX),
            status: fields.choice("status", &STATUSES),
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
