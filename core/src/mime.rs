//! MIME types, guessed from a file name: a listing carries none.
//!
//! A small table of what media buckets hold, by [IANA's names](https://www.iana.org/assignments/media-types/). It is a
//! guess and nothing more: the bytes are never looked at.

/// What a name without a known extension is taken for.
pub const UNKNOWN: &str = "application/octet-stream";

/// The longest extension that is known.
const EXTENSION_BYTES_MAX: usize = 8;

/// Extensions in lower case, sorted, so that they can be searched by halving.
const TYPES: &[(&str, &str)] = &[
    ("3gp", "video/3gpp"),
    ("7z", "application/x-7z-compressed"),
    ("aac", "audio/aac"),
    ("aif", "audio/aiff"),
    ("aiff", "audio/aiff"),
    ("avi", "video/x-msvideo"),
    ("avif", "image/avif"),
    ("bmp", "image/bmp"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("epub", "application/epub+zip"),
    ("flac", "audio/flac"),
    ("flv", "video/x-flv"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("ico", "image/vnd.microsoft.icon"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("jsonl", "application/jsonl"),
    ("m2ts", "video/mp2t"),
    ("m4a", "audio/mp4"),
    ("m4v", "video/x-m4v"),
    ("md", "text/markdown"),
    ("mkv", "video/matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpeg", "video/mpeg"),
    ("mpg", "video/mpeg"),
    ("mts", "video/mp2t"),
    ("ndjson", "application/x-ndjson"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("opus", "audio/opus"),
    ("parquet", "application/vnd.apache.parquet"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("ppt", "application/vnd.ms-powerpoint"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("psd", "image/vnd.adobe.photoshop"),
    ("rtf", "application/rtf"),
    ("srt", "application/x-subrip"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("tsv", "text/tab-separated-values"),
    ("txt", "text/plain"),
    ("vtt", "text/vtt"),
    ("wav", "audio/wav"),
    ("weba", "audio/webm"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
    ("wma", "audio/x-ms-wma"),
    ("wmv", "video/x-ms-wmv"),
    ("xls", "application/vnd.ms-excel"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", "application/xml"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zip", "application/zip"),
];

/// The MIME type that the extension of `key` stands for, in any case; [`UNKNOWN`] without one.
///
/// ```
/// use b2sync_core::mime;
/// assert_eq!(mime::guess("2024/Holiday.MP4"), "video/mp4");
/// assert_eq!(mime::guess("2024/README"), mime::UNKNOWN);
/// ```
pub fn guess(key: &str) -> &'static str {
    let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
    let Some((_, extension)) = name.rsplit_once('.') else { return UNKNOWN };
    let mut lower = [0; EXTENSION_BYTES_MAX];
    let Some(lower) = lower.get_mut(..extension.len()) else { return UNKNOWN };
    lower.copy_from_slice(extension.as_bytes());
    lower.make_ascii_lowercase();
    let found = TYPES.binary_search_by(|(candidate, _)| candidate.as_bytes().cmp(lower));
    found.ok().and_then(|index| TYPES.get(index)).map_or(UNKNOWN, |(_, mime)| mime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_well_formed() {
        assert!(TYPES.is_sorted_by(|a, b| a.0 < b.0));
        for (extension, mime) in TYPES {
            assert_eq!(guess(&format!("a/b.{extension}")), *mime);
            assert_eq!(mime.matches('/').count(), 1, "{mime}");
            assert!(extension.len() <= EXTENSION_BYTES_MAX);
        }
    }

    #[test]
    fn what_has_no_known_extension_is_unknown() {
        for key in ["", "a", "a.", "a.mp4/", "a.mp4/b", "a.unheard-of", "日本語", ".日本"] {
            assert_eq!(guess(key), UNKNOWN, "{key:?}");
        }
    }
}
