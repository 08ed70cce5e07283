//! Buckets that a seed fills: a media library with every awkward kind of name in it, and plain numbered files.
//!
//! The same seed gives the same bucket, whatever the day.

use b2sync_core::entropy::Entropy as _;
use b2sync_core::time::Timestamp;

use super::FakeB2;
use super::model::{KEY_BYTES_MAX, ModelError, NewFile};
use crate::virtual_world::SeededEntropy;

/// 2024-01-01T00:00:00Z: the earliest upload.
const FIRST_UPLOAD: Timestamp = Timestamp::from_millis(1_704_067_200_000);
/// Uploads end in the middle of 2026.
const UPLOADS_SPAN_MS: u64 = 900 * 86_400_000;

const FOLDERS: &[&str] = &[
    "raw/2024",
    "raw/2025",
    "raw/2026",
    "videos/interviews",
    "videos/b-roll",
    "photos/Spring Launch",
    "photos/events/Köln",
    "exports/social/9x16",
    "exports/social/1x1",
    "podcast/season 3",
    "uploads/incoming",
];
const WORDS: &[&str] =
    &["beach", "drone", "keynote", "interview", "city", "product", "forest", "team", "sunset", "demo", "teaser"];
/// Ending, content type, typical size in bytes, and how many of a hundred files have it.
const KINDS: &[(&str, &str, u64, u64)] = &[
    (".mp4", "video/mp4", 80_000_000, 30),
    (".mov", "video/quicktime", 200_000_000, 8),
    (".jpg", "image/jpeg", 4_000_000, 30),
    ("_thumbnail.jpg", "image/jpeg", 40_000, 22),
    (".txt", "text/plain", 3_000, 6),
    (".tmp", "application/octet-stream", 500_000, 4),
];

/// Names that have broken a sync. All differ, and none can be mistaken for another of a media bucket.
pub fn awkward_keys() -> Vec<String> {
    let mut keys: Vec<String> = [
        "awkward/with space.mp4",
        "awkward/ leading and trailing .jpg ",
        "awkward/plus+plus.mp4",
        "awkward/100%.txt",
        "awkward/%2F.txt",
        "awkward/%252F.txt",
        "awkward/a%20b.mp4",
        "awkward/a&b=c?d#e.mp4",
        "awkward/&amp;.txt",
        "awkward//double.mp4",
        "awkward///triple.mp4",
        "/awkward/leading.mp4",
        "//awkward/leading twice.mp4",
        "/",
        "awkward/emoji 😀🎬.mp4",
        "awkward/👩‍👩‍👧.jpg",
        "awkward/日本語のファイル.mov",
        "awkward/한국어.jpg",
        "awkward/עברית.txt",
        "awkward/cafe\u{301}.jpg",
        "awkward/caf\u{e9}.jpg",
        "awkward/\u{ff5e}wide.mp4",
        "awkward/folder/",
        "awkward/folder/inside.mp4",
        "awkward/folder",
        "awkward/control\u{1}.txt",
        "awkward/tab\there.txt",
        "awkward/line\nbreak.txt",
        "awkward/return\rhere.txt",
        "awkward/delete\u{7f}.txt",
        "awkward/nbsp\u{a0}.txt",
        "awkward/zero\u{200b}width.txt",
        "awkward/\u{feff}bom.txt",
        "awkward/\u{fffd}replacement.txt",
        "awkward/\"double\" 'single' `back`.txt",
        "awkward/<tag>&lt;.txt",
        "awkward/]]>.txt",
        "awkward/<!--.txt",
        "awkward/back\\slash.txt",
        "awkward/../up.txt",
        "awkward/./here.txt",
        "..",
        ".",
        "awkward/..",
        "awkward/Case.MP4",
        "awkward/case.mp4",
        "awkward/CASE.MP4",
        "awkward/*?[a]{b,c}.mp4",
        "awkward/semi;colon:comma,.txt",
        "awkward/~tilde!$()@^|.txt",
        "awkward/IMG_0001.JPG",
        "awkward/.hidden",
        "awkward/clip.mp4.tmp",
        "awkward/_thumbnail.jpg",
        "awkward/no extension",
        "_admin/not the fake's own",
        "b2api/v4/b2_authorize_account",
        "awkward/continuation-token=x",
        "awkward/null",
        "awkward/\u{10ffff}",
    ]
    .map(str::to_owned)
    .to_vec();
    keys.push(format!("awkward/long/{}.mp4", "l".repeat(KEY_BYTES_MAX - "awkward/long/.mp4".len())));
    keys.push(format!("awkward/long/é{}", "é".repeat((KEY_BYTES_MAX - "awkward/long/é".len()) / 2)));
    keys
}

/// Fills a bucket with `count` files that look like those of a media company, [`awkward_keys`] first.
///
/// # Errors
/// There is no such bucket.
pub fn seed_media_bucket(fake: &FakeB2, bucket: &str, count: usize, seed: u64) -> Result<(), ModelError> {
    let entropy = SeededEntropy::new(seed);
    let awkward = awkward_keys();
    fake.edit(|model| {
        for index in 0..count {
            let (key, file) = match awkward.get(index) {
                Some(key) => (key.clone(), awkward_file(&entropy, key)),
                None => media_file(&entropy, index),
            };
            model.put(bucket, &key, file, draw_time(&entropy))?;
        }
        Ok(())
    })
}

/// Fills a bucket with `count` plain files, `item-00000000` onwards: the fastest large bucket.
///
/// # Errors
/// There is no such bucket.
pub fn seed_plain_bucket(fake: &FakeB2, bucket: &str, count: usize, seed: u64) -> Result<(), ModelError> {
    let entropy = SeededEntropy::new(seed);
    fake.edit(|model| {
        for index in 0..count {
            let file = NewFile::generated(entropy.next_u64(), entropy.below(1 << 20));
            model.put(bucket, &format!("item-{index:08}"), file, draw_time(&entropy))?;
        }
        Ok(())
    })
}

fn draw_time(entropy: &SeededEntropy) -> Timestamp {
    FIRST_UPLOAD.plus_millis(entropy.below(UPLOADS_SPAN_MS).cast_signed())
}

fn awkward_file(entropy: &SeededEntropy, key: &str) -> NewFile {
    let kind = KINDS.iter().find(|(ending, ..)| key.ends_with(ending));
    let (content_type, typical) = kind.map_or(("application/octet-stream", 1_000), |&(_, kind, size, _)| (kind, size));
    // Empty, it would be a folder marker, which b2sync leaves out.
    let size = if key.ends_with('/') { 1 } else { entropy.below(typical * 2) };
    NewFile::generated(entropy.next_u64(), size).with_content_type(content_type)
}

fn media_file(entropy: &SeededEntropy, index: usize) -> (String, NewFile) {
    let mut percent = entropy.below(100);
    let kind = KINDS.iter().find(|(.., share)| match percent.checked_sub(*share) {
        Some(rest) => {
            percent = rest;
            false
        }
        None => true,
    });
    let &(ending, content_type, typical, _) = kind.unwrap_or(&KINDS[0]);
    let (folder, word) = (pick(entropy, FOLDERS), pick(entropy, WORDS));
    // Half of a real library is camera names, which are all alike.
    let key = match entropy.below(4) {
        0 => format!("{folder}/{word} {index}{ending}"),
        1 => format!("{folder}/{word}/{word}_{index:06}{ending}"),
        2 => format!("{folder}/DSC{index:07}{ending}"),
        _ => format!("{folder}/{:02}/IMG_{index:06}{ending}", 1 + entropy.below(12)),
    };
    let file = NewFile::generated(entropy.next_u64(), entropy.below(typical * 2))
        .with_content_type(content_type)
        .with_info("src_last_modified_millis", &draw_time(entropy).as_millis().to_string());
    (key, file)
}

fn pick(entropy: &SeededEntropy, from: &[&'static str]) -> &'static str {
    usize::try_from(entropy.below(from.len() as u64)).ok().and_then(|index| from.get(index).copied()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Config;

    #[test]
    fn awkward_keys_are_keys_and_all_differ() {
        let keys = awkward_keys();
        assert!(keys.iter().all(|key| (1..=KEY_BYTES_MAX).contains(&key.len())));
        assert_eq!(keys.iter().filter(|key| key.len() >= KEY_BYTES_MAX - 1).count(), 2);
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
    }

    #[test]
    fn a_seed_repeats_its_bucket() {
        let filled = |seed| {
            let fake = FakeB2::new(Config::default());
            fake.create_bucket("my-media").unwrap();
            seed_media_bucket(&fake, "my-media", 500, seed).unwrap();
            fake.visible("my-media")
        };
        let files = filled(7);
        assert_eq!(files.len(), 500, "no two files share a key");
        assert_eq!(files, filled(7));
        assert_ne!(files, filled(8));
        for ending in [".mp4", ".mov", ".jpg", ".txt", ".tmp", "_thumbnail.jpg"] {
            assert!(files.iter().filter(|file| file.key.ends_with(ending)).count() > 3, "{ending}");
        }
    }
}
