//! MIME types, guessed from a file name: a listing carries none.
//!
//! A table of what media buckets hold, by [IANA's names](https://www.iana.org/assignments/media-types/) where it has
//! one, and `mime_guess` for all other extensions. It is a guess and nothing more: the bytes are never looked at.

/// Differs when a name may be taken for another type than before: a filter by type then compares everything again.
pub const TABLE_VERSION: &str = "1, mime_guess 2.0.5";

/// What a name without a known extension is taken for.
pub const UNKNOWN: &str = "application/octet-stream";

/// The longest extension in [`TYPES`].
const EXTENSION_BYTES_MAX: usize = 8;
/// The longest extension that is looked up at all.
const LOOKED_UP_BYTES_MAX: usize = 32;

/// Extensions in lower case, sorted, so that they can be searched by halving. Where `mime_guess` has the same
/// extension, this table wins: it has `ts` as video, and no video as `application/…`.
const TYPES: &[(&str, &str)] = &[
    ("264", "video/h264"),
    ("265", "video/h265"),
    ("3fr", "image/x-hasselblad-3fr"),
    ("3ga", "audio/3gpp"),
    ("3gp", "video/3gpp"),
    ("7z", "application/x-7z-compressed"),
    ("aac", "audio/aac"),
    ("aif", "audio/aiff"),
    ("aiff", "audio/aiff"),
    ("amr", "audio/amr"),
    ("amv", "video/x-amv"),
    ("ape", "audio/x-ape"),
    ("ass", "text/x-ssa"),
    ("av1", "video/av1"),
    ("avi", "video/x-msvideo"),
    ("avif", "image/avif"),
    ("awb", "audio/amr-wb"),
    ("bmp", "image/bmp"),
    ("bpg", "image/bpg"),
    ("braw", "video/x-braw"),
    ("bwf", "audio/wav"),
    ("cin", "image/x-cineon"),
    ("crm", "video/x-canon-crm"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("dds", "image/vnd.ms-dds"),
    ("dff", "audio/x-dff"),
    ("dfxp", "application/ttml+xml"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("dpx", "image/x-dpx"),
    ("dsf", "audio/x-dsf"),
    ("dvr-ms", "video/x-ms-dvr"),
    ("eac3", "audio/eac3"),
    ("epub", "application/epub+zip"),
    ("evo", "video/mpeg"),
    ("exr", "image/x-exr"),
    ("flac", "audio/flac"),
    ("flc", "video/x-flc"),
    ("flv", "video/x-flv"),
    ("gif", "image/gif"),
    ("gxf", "video/gxf"),
    ("gz", "application/gzip"),
    ("h265", "video/h265"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("hevc", "video/h265"),
    ("hif", "image/heif"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("ico", "image/vnd.microsoft.icon"),
    ("iiq", "image/x-phaseone-iiq"),
    ("insv", "video/mp4"),
    ("ipynb", "application/x-ipynb+json"),
    ("j2k", "image/jp2"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("jsonl", "application/jsonl"),
    ("lrv", "video/mp4"),
    ("lxf", "video/x-lxf"),
    ("m2p", "video/mpeg"),
    ("m2t", "video/mp2t"),
    ("m2ts", "video/mp2t"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("m4b", "audio/mp4"),
    ("m4p", "audio/mp4"),
    ("m4r", "audio/mp4"),
    ("m4v", "video/x-m4v"),
    ("md", "text/markdown"),
    ("mid", "audio/midi"),
    ("midi", "audio/midi"),
    ("mk3d", "video/matroska-3d"),
    ("mka", "audio/matroska"),
    ("mks", "video/matroska"),
    ("mkv", "video/matroska"),
    ("mov", "video/quicktime"),
    ("mp1", "audio/mpeg"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpa", "audio/mpeg"),
    ("mpeg", "video/mpeg"),
    ("mpg", "video/mpeg"),
    ("mpv", "video/mpeg"),
    ("mts", "video/mp2t"),
    ("mxf", "video/mxf"),
    ("ndjson", "application/x-ndjson"),
    ("nsv", "video/x-nsv"),
    ("nut", "video/x-nut"),
    ("obu", "video/av1"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogm", "video/ogg"),
    ("ogv", "video/ogg"),
    ("opus", "audio/opus"),
    ("parquet", "application/vnd.apache.parquet"),
    ("pcx", "image/vnd.zbrush.pcx"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("ppt", "application/vnd.ms-powerpoint"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("psb", "image/vnd.adobe.photoshop"),
    ("psd", "image/vnd.adobe.photoshop"),
    ("r3d", "video/x-red-r3d"),
    ("rar", "application/vnd.rar"),
    ("rf64", "audio/wav"),
    ("rm", "video/vnd.rn-realvideo"),
    ("rmvb", "video/vnd.rn-realvideo"),
    ("rtf", "application/rtf"),
    ("srt", "application/x-subrip"),
    ("srw", "image/x-samsung-srw"),
    ("ssa", "text/x-ssa"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("tod", "video/mpeg"),
    ("tp", "video/mp2t"),
    ("trp", "video/mp2t"),
    ("ts", "video/mp2t"),
    ("tsv", "text/tab-separated-values"),
    ("tta", "audio/x-tta"),
    ("ttml", "application/ttml+xml"),
    ("tts", "video/mp2t"),
    ("txt", "text/plain"),
    ("voc", "audio/x-voc"),
    ("vro", "video/mpeg"),
    ("vtt", "text/vtt"),
    ("w64", "audio/x-w64"),
    ("wav", "audio/wav"),
    ("weba", "audio/webm"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
    ("wma", "audio/x-ms-wma"),
    ("wmv", "video/x-ms-wmv"),
    ("wtv", "video/x-ms-wtv"),
    ("wv", "audio/wavpack"),
    ("xcf", "image/x-xcf"),
    ("xls", "application/vnd.ms-excel"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", "application/xml"),
    ("y4m", "video/x-yuv4mpeg"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// Other names of types, sorted, and the names that [`guess`] answers.
const ALIASES: &[(&str, &str)] = &[
    ("application/gxf", "video/gxf"),
    ("application/javascript", "text/javascript"),
    ("application/mxf", "video/mxf"),
    ("application/vnd.rn-realmedia", "video/vnd.rn-realvideo"),
    ("application/vnd.rn-realmedia-vbr", "video/vnd.rn-realvideo"),
    ("application/x-gzip", "application/gzip"),
    ("application/x-javascript", "text/javascript"),
    ("application/x-jsonlines", "application/jsonl"),
    ("application/x-midi", "audio/midi"),
    ("application/x-mpegurl", "application/vnd.apple.mpegurl"),
    ("application/x-pdf", "application/pdf"),
    ("application/x-photoshop", "image/vnd.adobe.photoshop"),
    ("application/x-rar-compressed", "application/vnd.rar"),
    ("application/x-yaml", "application/yaml"),
    ("application/x-zip", "application/zip"),
    ("application/x-zip-compressed", "application/zip"),
    ("audio/aacp", "audio/aac"),
    ("audio/m4a", "audio/mp4"),
    ("audio/m4b", "audio/mp4"),
    ("audio/mid", "audio/midi"),
    ("audio/mp3", "audio/mpeg"),
    ("audio/mpeg3", "audio/mpeg"),
    ("audio/mpg", "audio/mpeg"),
    ("audio/vnd.wave", "audio/wav"),
    ("audio/wave", "audio/wav"),
    ("audio/x-aac", "audio/aac"),
    ("audio/x-aiff", "audio/aiff"),
    ("audio/x-flac", "audio/flac"),
    ("audio/x-m4a", "audio/mp4"),
    ("audio/x-m4b", "audio/mp4"),
    ("audio/x-matroska", "audio/matroska"),
    ("audio/x-midi", "audio/midi"),
    ("audio/x-mp3", "audio/mpeg"),
    ("audio/x-mpeg", "audio/mpeg"),
    ("audio/x-ogg", "audio/ogg"),
    ("audio/x-pn-wav", "audio/wav"),
    ("audio/x-wav", "audio/wav"),
    ("audio/x-wave", "audio/wav"),
    ("image/heic-sequence", "image/heic"),
    ("image/icon", "image/vnd.microsoft.icon"),
    ("image/jpg", "image/jpeg"),
    ("image/pjpeg", "image/jpeg"),
    ("image/psd", "image/vnd.adobe.photoshop"),
    ("image/svg", "image/svg+xml"),
    ("image/tif", "image/tiff"),
    ("image/x-bmp", "image/bmp"),
    ("image/x-heic", "image/heic"),
    ("image/x-icon", "image/vnd.microsoft.icon"),
    ("image/x-jpeg", "image/jpeg"),
    ("image/x-jpg", "image/jpeg"),
    ("image/x-ms-bmp", "image/bmp"),
    ("image/x-photoshop", "image/vnd.adobe.photoshop"),
    ("image/x-png", "image/png"),
    ("image/x-psd", "image/vnd.adobe.photoshop"),
    ("image/x-tiff", "image/tiff"),
    ("image/x-webp", "image/webp"),
    ("text/json", "application/json"),
    ("text/x-csv", "text/csv"),
    ("text/x-json", "application/json"),
    ("text/x-markdown", "text/markdown"),
    ("text/x-yaml", "application/yaml"),
    ("text/xml", "application/xml"),
    ("text/yaml", "application/yaml"),
    ("video/3gp", "video/3gpp"),
    ("video/avi", "video/x-msvideo"),
    ("video/flv", "video/x-flv"),
    ("video/m2ts", "video/mp2t"),
    ("video/m4v", "video/x-m4v"),
    ("video/mkv", "video/matroska"),
    ("video/mov", "video/quicktime"),
    ("video/mpegts", "video/mp2t"),
    ("video/mpg", "video/mpeg"),
    ("video/msvideo", "video/x-msvideo"),
    ("video/ts", "video/mp2t"),
    ("video/vnd.avi", "video/x-msvideo"),
    ("video/vnd.dlna.mpeg-tts", "video/mp2t"),
    ("video/vnd.objectvideo", "video/mp4"),
    ("video/wmv", "video/x-ms-wmv"),
    ("video/x-matroska", "video/matroska"),
    ("video/x-mkv", "video/matroska"),
    ("video/x-mov", "video/quicktime"),
    ("video/x-mp4", "video/mp4"),
    ("video/x-mpeg", "video/mpeg"),
    ("video/x-mpegts", "video/mp2t"),
    ("video/x-mxf", "video/mxf"),
    ("video/x-quicktime", "video/quicktime"),
    ("video/x-webm", "video/webm"),
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
    if extension.is_empty() || extension.len() > LOOKED_UP_BYTES_MAX {
        return UNKNOWN;
    }
    let guessed = || mime_guess::from_ext(extension).first_raw().map(|guessed| of_alias(guessed).unwrap_or(guessed));
    of_table(extension).or_else(guessed).unwrap_or(UNKNOWN)
}

fn of_alias(mime: &str) -> Option<&'static str> {
    let found = ALIASES.binary_search_by(|(alias, _)| (*alias).cmp(mime));
    found.ok().and_then(|index| ALIASES.get(index)).map(|(_, canonical)| *canonical)
}

fn of_table(extension: &str) -> Option<&'static str> {
    let mut lower = [0; EXTENSION_BYTES_MAX];
    let lower = lower.get_mut(..extension.len())?;
    lower.copy_from_slice(extension.as_bytes());
    lower.make_ascii_lowercase();
    let found = TYPES.binary_search_by(|(candidate, _)| candidate.as_bytes().cmp(lower));
    found.ok().and_then(|index| TYPES.get(index)).map(|(_, mime)| *mime)
}

/// The name under which [`guess`] answers a type, which may have others; in lower case. `None`: no file name is taken
/// for this type.
///
/// ```
/// use b2sync_core::mime;
/// assert_eq!(mime::canonical("image/jpg"), Some("image/jpeg"));
/// assert_eq!(mime::canonical("image/jgp"), None);
/// ```
pub fn canonical(mime: &str) -> Option<&'static str> {
    if mime == UNKNOWN {
        return Some(UNKNOWN);
    }
    if let Some(canonical) = of_alias(mime) {
        return Some(canonical);
    }
    if let Some((_, known)) = TYPES.iter().find(|(_, known)| *known == mime) {
        return Some(known);
    }
    let (kind, subtype) = mime.split_once('/').filter(|(kind, subtype)| *kind != "*" && *subtype != "*")?;
    let extensions = mime_guess::get_extensions(kind, subtype)?;
    let mut guesses = extensions.iter().map(|extension| guess(&format!("a.{extension}")));
    guesses.clone().find(|guessed| *guessed == mime).or_else(|| guesses.next())
}

/// Whether a name may be taken for a type of that kind: `video`.
pub fn is_kind(kind: &str) -> bool {
    kind != "*" && mime_guess::get_extensions(kind, "*").is_some()
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

    /// All extensions of both tables, with what they stand for.
    fn all() -> Vec<String> {
        let extensions = mime_guess::get_extensions("*", "*").unwrap().iter().copied();
        let mut all: Vec<String> = extensions
            .chain(TYPES.iter().map(|(extension, _)| *extension))
            .map(|extension| format!("{extension} {}\n", guess(&format!("a.{extension}"))))
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn a_change_of_the_tables_is_a_change_of_the_version() {
        let hash = blake3::hash(all().concat().as_bytes()).to_hex().to_string();
        assert_eq!(
            (TABLE_VERSION, hash.get(..16).unwrap()),
            ("1, mime_guess 2.0.5", "76fc54c6cea63913"),
            "a name may be taken for another type: change TABLE_VERSION"
        );
    }

    #[test]
    fn media_are_media() {
        let of = |extensions: &str, kind: &str| {
            for extension in extensions.split(' ') {
                let guessed = guess(&format!("a.{extension}"));
                assert!(guessed.starts_with(kind), "{extension}: {guessed}");
            }
        };
        of(
            "mp4 m4v mov qt mkv webm avi wmv asf flv f4v mpg mpeg mpe m1v m2v mpv m2p ts mts m2ts m2t vob mxf gxf 3gp \
             3g2 ogv ogm dv divx rm rmvb mod tod h264 hevc braw r3d crm insv lrv y4m mj2 wtv TS Mp4",
            "video/",
        );
        of(
            "mp3 m4a m4b wav wave aac flac ogg oga opus aif aiff aifc wma amr ac3 eac3 dts mka mid au caf ape wv dsf \
             spx weba mp2 mpa",
            "audio/",
        );
        of(
            "jpg jpeg jpe jfif png gif webp avif heic heif tif tiff bmp svg ico psd psb cr2 cr3 nef arw dng orf rw2 \
             raf pef srw jxl jp2 exr dpx tga hdr",
            "image/",
        );
    }

    #[test]
    fn a_type_has_other_names() {
        assert!(ALIASES.is_sorted_by(|a, b| a.0 < b.0));
        for (alias, mime) in ALIASES {
            assert!(TYPES.iter().any(|(_, known)| known == mime), "{alias}: {mime} stands for no extension");
            assert!(!TYPES.iter().any(|(_, known)| known == alias), "{alias} is a type of its own");
        }
        for line in all() {
            let (extension, guessed) = line.trim_end().split_once(' ').unwrap();
            assert_eq!(canonical(guessed), Some(guessed), "{extension}");
            // Every name that `mime_guess` has for it means the same files, or others that it stands for.
            for name in mime_guess::from_ext(extension).iter_raw() {
                assert!(canonical(name).is_some(), "{extension}: {name}");
            }
        }
        for (name, mime) in [
            ("image/jpg", Some("image/jpeg")),
            ("video/x-matroska", Some("video/matroska")),
            ("audio/x-wav", Some("audio/wav")),
            ("application/mxf", Some("video/mxf")),
            ("video/x-f4v", Some("video/x-f4v")),
            ("application/octet-stream", Some(UNKNOWN)),
            ("video/mp5", None),
            ("vdieo/mp4", None),
            ("mp4", None),
        ] {
            assert_eq!(canonical(name), mime, "{name}");
        }
        assert!(is_kind("video") && is_kind("font") && !is_kind("vdieo") && !is_kind("*"));
    }

    #[test]
    fn what_has_no_known_extension_is_unknown() {
        for key in ["", "a", "a.", "a.mp4/", "a.mp4/b", "a.unheard-of", "日本語", ".日本"] {
            assert_eq!(guess(key), UNKNOWN, "{key:?}");
        }
    }
}
