//! `explain`: whether each sentence is true in its moment.

use super::*;
use crate::{catalogue::ChangeWire, sinks::dead_letters::PreviousWire};
use b2sync_core::snapshot::EtagTag;

const KEY: &str = "v/a.mp4";
const ETAG: &str = "0cc175b9c0f1b6a831c399e269772661";
/// The time of the version that [`Case::shows`] makes B2 show.
const UPLOADED: &str = "2023-11-14T20:00:00.000Z";
const TAKEN: &str = "The filters take it.";
const TAKEN_BEFORE: &str = "The filters take the version that was known last.";
const GONE: &str =
    "B2 shows no file with exactly this key: it was deleted or hidden, or never uploaded. Keys are case-sensitive.";

/// A sync of `b2://my-videos/v/`, and what is known of [`KEY`].
struct Case {
    home: Home,
    path: String,
}

impl Case {
    /// With these settings; one job has completed, and the next poll is 100 s away.
    fn new(settings: Value) -> Self {
        let home = Home::new();
        home.connection("A");
        let mut body = json!({"connection_id": "A", "source_path": "my-videos/v/"});
        body.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let created = home.ok("POST", SYNCS, body);
        let path = format!("{SYNCS}/{}", created["sync_config_id"].as_str().unwrap());
        let case = Self { home, path };
        case.status(|status| {
            status.state = SyncState::Active;
            status.next_sync_at = Some(Timestamp::from_millis(NOW + 100_000));
        });
        case.home.stored.borrow_mut().generation = 1;
        case
    }

    fn status(&self, change: impl FnOnce(&mut SyncStatus)) {
        change(&mut self.home.stored.borrow_mut().status);
    }

    /// B2 lists the file with these words for its size and its time.
    fn lists(&self, size: &str, last_modified: &str) {
        let found = format!(
            "<Contents><Key>{KEY}</Key><LastModified>{last_modified}</LastModified><ETag>\"{ETAG}\"</ETag>\
             <Size>{size}</Size></Contents></ListBucketResult>"
        );
        *self.home.list.borrow_mut() = Some((200, PAGE.replace("</ListBucketResult>", &found)));
    }

    fn shows(&self) {
        self.lists("7", UPLOADED);
    }

    fn known(&self, size: u64) {
        self.home.stored.borrow_mut().known = Some(PreviousWire {
            size,
            last_modified: Timestamp::parse_rfc3339(UPLOADED).unwrap(),
            tag: u64::from_be_bytes(EtagTag::of(ETAG).0),
        });
    }

    fn appended(&self, kind: ChangeKind) {
        let last_modified = Timestamp::parse_rfc3339(UPLOADED).unwrap();
        let mut change = created(3, Entry { key: KEY.to_owned(), etag: ETAG.to_owned(), size: 7, last_modified });
        change.kind = kind;
        self.home.stored.borrow_mut().changes = vec![ChangeWire::from(&change)];
    }

    fn held(&self, count: u64) {
        self.home.stored.borrow_mut().is_undeleted = true;
        self.status(|status| status.deletions_held = count);
    }

    fn explain(&self) -> Value {
        self.home.ok("GET", &format!("{}/explain?key=v%2Fa.mp4", self.path), Value::Null)
    }

    /// Without what the feed and the sinks have.
    #[track_caller]
    fn says(&self, wanted: &[&str]) {
        let explained = self.explain();
        let said = explained["summary"].as_array().unwrap().iter().map(|said| said.as_str().unwrap());
        let said: Vec<&str> = said.filter(|said| !said.contains(" feed ")).collect();
        assert_eq!(said, wanted, "{explained:#}");
    }
}

fn shown() -> String {
    "B2 shows the file now: 7 bytes, last modified 2023-11-14T20:00:00Z.".to_owned()
}

#[test]
fn an_entry_that_cannot_be_read_has_no_size_and_no_time() {
    let case = Case::new(json!({"file_filters": {"min_size_bytes": 1, "modified_after": "2020-01-01"}}));
    case.lists("abc5", UPLOADED);
    let unreadable = "B2 lists the file, but its entry cannot be read: <Size> is \"abc5\". Until it can, jobs set the \
                      file aside, and append nothing of it.";
    let by_name = "The filters take a file of this name.";
    case.says(&[unreadable, by_name]);
    let explained = case.explain();
    assert_eq!(explained["b2"], json!({"is_there": true, "unreadable": "<Size> is \"abc5\""}), "{explained}");
    assert_eq!(explained["filters"]["by_name_only"], true, "{explained}");
    case.known(7);
    case.says(&[unreadable, by_name, "The snapshot knows a version of it."]);
    assert_eq!(case.explain()["snapshot"]["is_current_version"], Value::Null);
}

#[test]
fn what_comes_next_fits_how_the_sync_stands() {
    let case = Case::new(json!({}));
    case.known(7);
    let says = |comes: &str| case.says(&[GONE, TAKEN_BEFORE, &format!("The snapshot still knows it. {comes}")]);
    let deletes = "appends its deletion, or holds it if there are more than `deletion_limit` allows.";
    says(&format!("The next poll, at 2023-11-14T22:15:00Z, {deletes}"));
    case.status(|status| status.next_sync_at = Some(Timestamp::from_millis(NOW)));
    says(&format!("The next poll, which is due, {deletes}"));
    case.status(|status| status.next_sync_at = None);
    says(&format!("No poll is planned. A job that you start with POST …/trigger {deletes}"));
    case.status(|status| status.paused_at = Some(Timestamp::from_millis(NOW)));
    says(&format!("The sync is paused. The job after POST …/resume {deletes}"));
    case.status(|status| status.current_job = Some(job("job_now", NOW, JobStatus::Running)));
    says(
        "A job is running. When it comes to the file, it appends its deletion, or holds it if there are more than \
         `deletion_limit` allows; or else the next one does.",
    );
}

#[test]
fn what_reconcile_silences_is_not_promised() {
    let nothing = |what: &str, field: &str| {
        format!(
            "The next poll, at 2023-11-14T22:15:00Z, {what} and appends nothing, because `reconcile.{field}` is false."
        )
    };
    let case = Case::new(json!({"reconcile": {"on_delete": false}}));
    case.known(7);
    let dropped = nothing("drops it from the snapshot", "on_delete");
    case.says(&[GONE, TAKEN_BEFORE, &format!("The snapshot still knows it. {dropped}")]);
    case.home.stored.borrow_mut().known = None;
    case.appended(ChangeKind::Created);
    let explained = case.explain();
    let kept = "The snapshot does not know it, and the feed has no deletion of it: `reconcile` keeps such objects.";
    assert_eq!(explained["summary"][2], kept, "{explained}");

    let case = Case::new(json!({"reconcile": {"on_filter_drift": false}, "exclude_patterns": ["*.mp4"]}));
    case.known(7);
    case.shows();
    let out = "The filters leave it out: the file matches the exclude pattern \"*.mp4\" \
               (`file_filters.exclude_patterns`).";
    let before = "The snapshot still knows it, since the filters took it before.";
    let dropped = nothing("drops it from the snapshot", "on_filter_drift");
    case.says(&[&shown(), out, &format!("{before} {dropped}")]);

    let case = Case::new(json!({"reconcile": {"on_update": false}}));
    case.known(6);
    case.shows();
    let taken_over = nothing("takes this one over", "on_update");
    case.says(&[&shown(), TAKEN, &format!("The snapshot knows another version. {taken_over}")]);
}

#[test]
fn a_held_deletion_is_told_as_it_is_now() {
    let case = Case::new(json!({}));
    case.known(7);
    case.held(120);
    let confirm = "with POST …/trigger?confirm_deletes=true.";
    let held = "It holds the deletion back, because there were more such files than `deletion_limit` allows.";
    let gone = format!("A job found the file gone or left out. {held}");
    case.says(&[GONE, TAKEN_BEFORE, &format!("{gone} Confirm {confirm}")]);
    case.status(|status| status.paused_at = Some(Timestamp::from_millis(NOW)));
    case.says(&[GONE, TAKEN_BEFORE, &format!("{gone} Resume the sync, and then confirm {confirm}")]);
    case.status(|status| status.paused_at = None);

    // It is there again: to confirm would be to no purpose.
    case.shows();
    let back = "A job found the file gone or left out. It is there again. The next poll, at 2023-11-14T22:15:00Z,";
    case.says(&[&shown(), TAKEN, &format!("{back} no longer holds its deletion.")]);
    case.known(6);
    case.says(&[&shown(), TAKEN, &format!("{back} appends the update and no longer holds its deletion.")]);

    // It never was gone.
    case.home.ok("PATCH", &case.path, json!({"exclude_patterns": ["*.mp4"]}));
    let explained = case.explain();
    let left_out = format!("A job found the file left out by the filters. {held} Confirm {confirm}");
    assert_eq!(explained["summary"][2], left_out, "{explained}");

    // No job holds it: one broke off.
    case.held(0);
    let broke_off = "A job found the file left out by the filters, and ended before it appended the deletion. The next \
                     poll, at 2023-11-14T22:15:00Z, looks again.";
    assert_eq!(case.explain()["summary"][2], broke_off);
}

#[test]
fn what_a_job_has_appended_so_far_is_not_promised_again() {
    let case = Case::new(json!({}));
    case.shows();
    let comes = "The next poll, at 2023-11-14T22:15:00Z, appends it.";
    case.says(&[&shown(), TAKEN, &format!("The snapshot does not know it yet. {comes}")]);
    case.home.stored.borrow_mut().generation = 0;
    case.says(&[&shown(), TAKEN, &format!("No job has completed its listing so far. {comes}")]);
    case.appended(ChangeKind::Created);
    let in_feed = "A job has appended this version. The snapshot knows it once a job has read the whole listing.";
    case.says(&[&shown(), TAKEN, in_feed]);
    case.home.stored.borrow_mut().generation = 1;
    case.says(&[&shown(), TAKEN, in_feed]);
    case.known(6);
    case.says(&[&shown(), TAKEN, in_feed]);
    case.appended(ChangeKind::Deleted);
    let comes = "The next poll, at 2023-11-14T22:15:00Z, appends the update.";
    case.says(&[&shown(), TAKEN, &format!("The snapshot knows another version. {comes}")]);
}

#[test]
fn limits_of_a_job_and_its_failure_are_told() {
    let case = Case::new(json!({"max_objects_per_run": 3}));
    case.shows();
    case.status(|status| {
        status.last_error = Some(ErrorRecord { kind: "x".into(), message: "No key.".into(), transient: false });
    });
    let comes = "The next poll, at 2023-11-14T22:15:00Z, appends it, if that is among the first 3 \
                 (`max_objects_per_run`).";
    let not_yet = format!("The snapshot does not know it yet. {comes}");
    case.says(&[&shown(), TAKEN, &not_yet, "The latest job failed: No key."]);
    case.known(7);
    case.says(&[&shown(), TAKEN, "The snapshot knows this version."]);
}

#[test]
fn the_snapshot_is_told_of_also_where_b2_cannot_be_asked() {
    let case = Case::new(json!({}));
    case.known(7);
    *case.home.list.borrow_mut() = Some((403, String::new()));
    let explained = case.explain();
    assert_eq!(explained["summary"][1], TAKEN_BEFORE, "{explained}");
    assert_eq!(explained["summary"][2], "The snapshot knows a version of it.", "{explained}");
    case.home.stored.borrow_mut().known = None;
    assert_eq!(case.explain()["summary"][2], "The snapshot does not know it.");
}

#[test]
fn a_key_that_is_not_utf8_is_another_key_than_was_asked_for() {
    let case = Case::new(json!({}));
    for query in ["key=v%2F%ff", "key=v%2F%C3", "%ff=1&key=a"] {
        let (status, answer) = case.home.call("GET", &format!("{}/explain?{query}", case.path), Value::Null);
        assert_eq!(status, 422, "{query}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("is not UTF-8"), "{query}: {answer}");
    }
    let (status, answer) = case.home.call("GET", "/v1/buckets/x/objects?prefix=%ff", Value::Null);
    assert_eq!(status, 422, "{answer}");
    assert_eq!(case.home.call("GET", "/v1/buckets/x/objects?prefix=%C3%BC%20+", Value::Null).0, 200);
}

#[test]
fn sync_from_leaves_files_out_too() {
    let case = Case::new(json!({"sync_from": "2023-12-01T00:00:00Z"}));
    case.shows();
    let out = "The filters leave it out: the file was not modified after sync_from, 2023-12-01T00:00:00Z \
               (`sync_from`).";
    case.says(&[&shown(), out]);
    assert_eq!(case.explain()["filters"]["decided_by"], "sync_from");
}
