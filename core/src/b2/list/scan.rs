//! The plain shape of a page, read by a scanner made for it.
//!
//! A poll of a bucket in which nothing changed does little else than read pages, and every page that an S3 service
//! sends has one shape: elements without attributes, no comments, names in `encoding-type=url` and so all
//! of it ASCII. [`scan_list_page`] reads that shape and no other. **It checks everything that it assumes**, and answers
//! `None` for anything it is not sure about, broken or only unusual: [`super::parse_list_page`] then asks the
//! parser of XML events, which alone says what is an error and which. So this module has no errors of its own, and a
//! page that it does read it reads as that parser does; the tests hold it to that with the parser as the oracle.
//! Of an entry as S3 documents it, it looks at long stretches at once, and at any other field by field.
//!
//! Not in the plain shape, among others: no `<EncodingType>url</EncodingType>` (it may stand before or behind the
//! contents), `<CommonPrefixes>`, a field missing, doubled, empty or unreadable, an entity other than a quote around an
//! ETag, any byte outside ASCII, any attribute but one `xmlns` of the root.

use super::{ListPage, PAGE_ENTRIES_MAX};
use crate::{
    entry::{EntryBytes, SIZE_MAX},
    time::Timestamp,
};

/// How long one entry is at least in practice, in bytes of XML: the guess at how many entries a page has.
const ENTRY_BYTES_USUAL: usize = 192;

/// Reads a page in the plain shape; `None` when it is in another, or not a page.
///
/// Every `Some` is what [`super::parse_list_page_by_events`] answers to the same body.
///
/// ```
/// use b2sync_core::b2::list::scan_list_page;
/// let page = scan_list_page(
///     b"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated></ListBucketResult>",
/// );
/// assert!(page.is_some_and(|page| page.entries.is_empty()));
/// assert_eq!(scan_list_page(b"<ListBucketResult><!-- empty --></ListBucketResult>"), None);
/// ```
pub fn scan_list_page(body: &[u8]) -> Option<ListPage> {
    let mut input = Input { rest: body };
    input.declaration()?;
    input.space();
    input.root()?;
    let mut entries = EntryBytes::with_capacity(body.len() / ENTRY_BYTES_USUAL, body.len() / 2);
    let mut entry_count = 0;
    let (mut truncated, mut next_token, mut url_encoded) = (None, None, false);
    loop {
        input.space();
        if input.eat(b"<Contents>") {
            entry_count += 1;
            if entry_count > PAGE_ENTRIES_MAX {
                return None;
            }
            if input.usual_entry(&mut entries).is_none() {
                input.entry(&mut entries)?;
            }
        } else if input.eat(b"</ListBucketResult>") {
            break;
        } else if input.eat(b"<IsTruncated>") {
            let value = if input.eat(b"true</IsTruncated>") {
                true
            } else if input.eat(b"false</IsTruncated>") {
                false
            } else {
                return None;
            };
            once(&mut truncated, value)?;
        } else if input.eat(b"<EncodingType>") {
            if url_encoded || !input.eat(b"url</EncodingType>") {
                return None;
            }
            url_encoded = true;
        } else if input.eat(b"<NextContinuationToken>") {
            let token = input.text()?;
            if token.is_empty() || !input.eat(b"</NextContinuationToken>") {
                return None;
            }
            once(&mut next_token, str::from_utf8(token).ok()?.to_owned())?;
        } else {
            let name = input.unknown()?;
            if name == b"CommonPrefixes" || name == b"Contents" {
                return None;
            }
        }
    }
    input.space();
    // Names were read as if they were encoded: whether that was right is known only here.
    if !url_encoded || !input.rest.is_empty() {
        return None;
    }
    Some(ListPage { entries: entries.finish()?, truncated: truncated?, next_token, common_prefixes: Vec::new() })
}

/// Fills an empty slot; `None` when it is full.
fn once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

/// What is left of the page.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// Takes `literal` if it comes next. Inlined everywhere: a comparison with few bytes that the compiler knows is a
    /// comparison of one or two words.
    #[inline(always)]
    fn eat(&mut self, literal: &[u8]) -> bool {
        match self.rest.strip_prefix(literal) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    #[inline(always)]
    fn must(&mut self, literal: &[u8]) -> Option<()> {
        self.eat(literal).then_some(())
    }

    /// Takes `length` bytes.
    #[inline(always)]
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    /// Passes over what may stand between two elements.
    #[inline(always)]
    fn space(&mut self) {
        while let Some((b' ' | b'\t' | b'\r' | b'\n', rest)) = self.rest.split_first() {
            self.rest = rest;
        }
    }

    /// Passes over `<?xml …?>`, which need not be there.
    fn declaration(&mut self) -> Option<()> {
        if self.eat(b"<?xml ") {
            let is_usual =
                |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'=' | b'"' | b'\'' | b'.' | b'-');
            let length = self.rest.iter().take_while(|byte| is_usual(byte)).count();
            self.take(length)?;
            self.must(b"?>")?;
        }
        Some(())
    }

    /// Passes over the start of the root, which may name its namespace.
    fn root(&mut self) -> Option<()> {
        self.must(b"<ListBucketResult")?;
        if self.eat(b" xmlns=\"") {
            let is_usual = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'/' | b'.' | b'-' | b'_');
            let length = self.rest.iter().take_while(|byte| is_usual(byte)).count();
            self.take(length)?;
            self.must(b"\"")?;
        }
        self.must(b">")
    }

    /// Takes text up to the next `<`: printable ASCII without entities.
    #[inline(always)]
    fn text(&mut self) -> Option<&'a [u8]> {
        self.name().map(|(text, _)| text)
    }

    /// The same, and whether there is anything in it that percent-decoding could change.
    #[inline(always)]
    fn name(&mut self) -> Option<(&'a [u8], bool)> {
        let mut length = plain_length(self.rest);
        let mut encoded = false;
        loop {
            match self.rest.get(length)? {
                b'<' => return Some((self.take(length)?, encoded)),
                b'&' => return None,
                b'+' | b'%' => encoded = true,
                b' '..=b'~' => {}
                _ => return None,
            }
            length += 1;
            length += plain_length(self.rest.get(length..)?);
        }
    }

    /// As [`Self::entry`], of an entry with the fields that S3 documents, in their order, and a quoted MD5 for an ETag:
    /// with few comparisons, of many bytes each. `None`, and nothing is taken, for any other.
    #[inline(always)]
    fn usual_entry(&mut self, entries: &mut EntryBytes) -> Option<()> {
        let mut ahead = Input { rest: self.rest };
        ahead.must(b"<Key>")?;
        let (key, encoded) = ahead.name()?;
        ahead.must(b"</Key><LastModified>")?;
        let (time, rest) = ahead.rest.split_first_chunk()?;
        ahead.rest = rest;
        let time = Timestamp::from_plain_millis(time)?;
        ahead.must(b"</LastModified><ETag>&quot;")?;
        let (etag, rest) = ahead.rest.split_first_chunk::<32>()?;
        ahead.rest = rest;
        if etag.iter().fold(false, |found, &byte| found | is_other(byte)) {
            return None;
        }
        ahead.must(b"&quot;</ETag><Size>")?;
        let size = ahead.size()?;
        ahead.must(b"</Size><StorageClass>STANDARD</StorageClass></Contents>")?;
        if key.is_empty() {
            return None;
        }
        // A name that does not decode ends the whole page: the other way meets it as well.
        push(entries, key, encoded, etag, size, time)?;
        self.rest = ahead.rest;
        Some(())
    }

    /// Reads what is left of an entry behind `<Contents>`, its end included.
    #[inline(always)]
    fn entry(&mut self, entries: &mut EntryBytes) -> Option<()> {
        let (mut key, mut etag, mut size, mut time) = (None, None, None, None);
        loop {
            self.space();
            // One look says which element may come: to try one name after the other costs more than to read it.
            match self.rest.get(1)? {
                b'K' if self.eat(b"<Key>") => {
                    once(&mut key, self.name()?)?;
                    self.must(b"</Key>")?;
                }
                b'L' if self.eat(b"<LastModified>") => {
                    once(&mut time, self.time()?)?;
                    self.must(b"</LastModified>")?;
                }
                b'E' if self.eat(b"<ETag>") => {
                    once(&mut etag, self.etag()?)?;
                    self.must(b"</ETag>")?;
                }
                b'S' if self.eat(b"<Size>") => {
                    once(&mut size, self.size()?)?;
                    self.must(b"</Size>")?;
                }
                b'S' if self.eat(b"<StorageClass>") => {
                    self.text()?;
                    self.must(b"</StorageClass>")?;
                }
                b'/' if self.eat(b"</Contents>") => break,
                _ if matches!(self.unknown()?, b"Key" | b"LastModified" | b"ETag" | b"Size") => return None,
                _ => {}
            }
        }
        let (key, encoded) = key?;
        if key.is_empty() {
            return None;
        }
        push(entries, key, encoded, etag?, size?, time?)
    }

    /// `YYYY-MM-DDTHH:MM:SS.mmmZ`, or the same without milliseconds.
    #[inline(always)]
    fn time(&mut self) -> Option<Timestamp> {
        if let Some((text, rest)) = self.rest.split_first_chunk()
            && let Some(time) = Timestamp::from_plain_millis(text)
        {
            self.rest = rest;
            return Some(time);
        }
        let (text, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Timestamp::from_plain_seconds(text)
    }

    /// An ETag in quotes, or without; the quotes taken off. At least one character, none of them a space or a quote.
    #[inline(always)]
    fn etag(&mut self) -> Option<&'a [u8]> {
        let quoted = self.quote();
        let etag = self.take(plain_length(self.rest))?;
        (!etag.is_empty() && quoted == self.quote()).then_some(etag)
    }

    #[inline(always)]
    fn quote(&mut self) -> bool {
        self.eat(b"&quot;") || self.eat(b"\"") || self.eat(b"&#34;")
    }

    /// A decimal number of at most 19 digits, which cannot overflow, up to [`SIZE_MAX`].
    #[inline(always)]
    fn size(&mut self) -> Option<u64> {
        let (first, count) = digits(self.rest)?;
        self.take(count)?;
        if count < 8 {
            return (count > 0).then_some(first);
        }
        self.long_size(first)
    }

    /// The same, behind eight digits.
    fn long_size(&mut self, mut size: u64) -> Option<u64> {
        for (count, byte) in self.rest.iter().take(12).enumerate() {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                self.take(count)?;
                return (size <= SIZE_MAX).then_some(size);
            }
            // Only a twentieth digit, which ends in `None` whatever it is, can make this wrap.
            size = size.wrapping_mul(10).wrapping_add(u64::from(digit));
        }
        None
    }

    /// Passes over an element that means nothing here, with at most one level of elements in it. Gives its name, so
    /// that the caller can tell an element which would have meant something.
    #[cold]
    fn unknown(&mut self) -> Option<&'a [u8]> {
        let (name, empty) = self.start()?;
        if !empty {
            self.space();
            self.text()?;
            while !self.rest.starts_with(b"</") {
                let (inner, empty) = self.start()?;
                if !empty {
                    self.text()?;
                    self.end(inner)?;
                }
                // What stands between the inner elements must be space: anything else is in another shape.
                self.space();
            }
            self.end(name)?;
        }
        Some(name)
    }

    /// Takes `<Name>` or `<Name/>`; gives the name, and whether it was the latter.
    fn start(&mut self) -> Option<(&'a [u8], bool)> {
        self.must(b"<")?;
        let name = self.take(self.rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count())?;
        let empty = self.eat(b"/");
        self.must(b">")?;
        // XML wants a letter first; the parser of events may or may not.
        name.first()?.is_ascii_alphabetic().then_some((name, empty))
    }

    fn end(&mut self, name: &[u8]) -> Option<()> {
        self.must(b"</")?;
        self.must(name)?;
        self.must(b">")
    }
}

/// Appends an entry.
#[inline(always)]
fn push(entries: &mut EntryBytes, key: &[u8], encoded: bool, etag: &[u8], size: u64, time: Timestamp) -> Option<()> {
    if encoded {
        entries.push(|text| decode_name(key, text), etag, size, time)
    } else {
        entries.push(
            |text| {
                text.extend_from_slice(key);
                Some(())
            },
            etag,
            size,
            time,
        )
    }
}

/// The number that the decimal digits at the start make, up to eight of them, and how many there are. `None` where
/// fewer than eight bytes are left: no page ends so soon behind a size.
#[inline(always)]
fn digits(bytes: &[u8]) -> Option<(u64, usize)> {
    let word = u64::from_le_bytes(*bytes.first_chunk()?) ^ all(b'0');
    // The top bit of each byte that is no digit. A carry comes only from a byte that is none, and goes only behind it.
    let other = (word | word.wrapping_add(all(0x80 - 10))) & all(0x80);
    let count = other.trailing_zeros() / 8;
    // The digits to the end of the word, zeros before them; in two halves, since a shift by 64 is none.
    let word = word << (4 * (8 - count)) << (4 * (8 - count));
    // Pairs, pairs of pairs, and both of those.
    let pairs = (word * 10 + (word >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    let number = (fours * 10_000 + (fours >> 32)) & 0xffff_ffff;
    Some((number, count as usize))
}

/// The same byte eight times.
const fn all(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Whether a byte is not above `,` and below 128, or `<`.
#[inline(always)]
fn is_other(byte: u8) -> bool {
    !(b'-'..0x80).contains(&byte) || byte == b'<'
}

/// How many bytes at the start are above `,` and below 128, and not `<`: all that names are mostly made of, and nothing
/// that needs a closer look.
#[inline(always)]
fn plain_length(bytes: &[u8]) -> usize {
    // Sixteen bytes at a time as long as all are plain: without a way out in the middle, the compiler makes few
    // instructions of that.
    let mut length = 0;
    for chunk in bytes.as_chunks::<16>().0 {
        if chunk.iter().fold(false, |found, &byte| found | is_other(byte)) {
            break;
        }
        length += 16;
    }
    let (words, tail) = bytes.get(length..).unwrap_or_default().as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        // The top bit of each byte says whether it is plain. A carry comes only from a byte of 128 or more, goes only
        // into the bytes behind it, and so never hides the first byte that is not plain.
        let plain = !word & word.wrapping_add(all(0x80 - b'-')) & (word ^ all(b'<')).wrapping_add(all(0x7f));
        let other = !plain & all(0x80);
        if other != 0 {
            return length + (other.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    length + tail.iter().take_while(|&&byte| !is_other(byte)).count()
}

/// Appends what `name` stands for in `encoding-type=url`; `None` for a `%` without two digits. Whether it is UTF-8 is
/// asked once for all entries.
fn decode_name(mut name: &[u8], text: &mut Vec<u8>) -> Option<()> {
    loop {
        let (plain, rest) = name.split_at_checked(plain_length(name))?;
        text.extend_from_slice(plain);
        name = match rest {
            [] => return Some(()),
            [b'%', high, low, rest @ ..] => {
                text.push(hex_digit(*high)? << 4 | hex_digit(*low)?);
                rest
            }
            [b'%', ..] => return None,
            [b'+', rest @ ..] => {
                text.push(b' ');
                rest
            }
            [other, rest @ ..] => {
                text.push(*other);
                rest
            }
        };
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::{super::parse_list_page_by_events, *};

    /// What AWS and the tests' own B2 leave alone in a name.
    const USUAL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*').remove(b'/');
    /// Little enough encoded that the XML is at risk of being another.
    const SPARSE: &AsciiSet = &percent_encoding::CONTROLS.add(b'%').add(b'<').add(b'&').add(b'+').add(b' ');

    /// Holds the scanner to the parser of events; whether it took the page.
    fn agrees(body: &[u8]) -> bool {
        match scan_list_page(body) {
            Some(page) => {
                let text = String::from_utf8_lossy(body);
                assert_eq!(Some(page), parse_list_page_by_events(body).ok(), "{text}");
                true
            }
            None => false,
        }
    }

    /// [The S3 API's example](https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html), with the
    /// `EncodingType` that was asked for and without the spaces before `<?xml`.
    const OF_AWS: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
    <Name>bucket</Name>
    <Prefix/>
    <KeyCount>205</KeyCount>
    <MaxKeys>1000</MaxKeys>
    <EncodingType>url</EncodingType>
    <IsTruncated>false</IsTruncated>
    <Contents>
        <Key>my-image.jpg</Key>
        <LastModified>2009-10-12T17:50:30.000Z</LastModified>
        <ETag>"fba9dede5f27731c9771645a39863328"</ETag>
        <ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>
        <ChecksumType>FULL_OBJECT</ChecksumType>
        <Size>434234</Size>
        <StorageClass>STANDARD</StorageClass>
    </Contents>
    <Contents>
        <Key>a+b/%E6%97%A5.jpg</Key>
        <LastModified>2009-10-12T17:50:30.000Z</LastModified>
        <ETag>"fba9dede5f27731c9771645a39863328-12"</ETag>
        <Size>0</Size>
        <StorageClass>GLACIER</StorageClass>
        <RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress></RestoreStatus>
    </Contents>
</ListBucketResult>
"#;

    /// B2 documents no order and no spacing, so this is all of S3's liberties at once: one line, what concerns the page
    /// behind its contents, owners, fields in another order, both quotes.
    const OF_B2: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\
        <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><IsTruncated>true</IsTruncated>\
        <Contents><Key>a/1.mp4</Key><LastModified>2024-01-01T00:00:00.250Z</LastModified>\
        <ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>7</Size>\
        <Owner><ID>0123</ID><DisplayName></DisplayName></Owner><StorageClass>STANDARD</StorageClass></Contents>\
        <Contents><ETag>&#34;e&#34;</ETag><Key>a/2.mp4</Key><Owner><ID>0123</ID><DisplayName/></Owner>\
        <LastModified>2024-01-01T00:00:00Z</LastModified><Size>9223372036854775807</Size></Contents>\
        <Name>bucket</Name><Prefix></Prefix><Delimiter/><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType>\
        <KeyCount>2</KeyCount><NextContinuationToken>YS8yLm1wNA==/+</NextContinuationToken></ListBucketResult>";

    /// As `tests/fake_b2/` writes it, all parameters given.
    const OF_THE_FAKE: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
        <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>bucket</Name><Prefix>a/</Prefix>\
        <MaxKeys>1000</MaxKeys><KeyCount>1</KeyCount><IsTruncated>true</IsTruncated>\
        <ContinuationToken>AbC-_9</ContinuationToken><NextContinuationToken>AbC-_9</NextContinuationToken>\
        <StartAfter>a/0+1%2B.mp4</StartAfter><EncodingType>url</EncodingType>\
        <Contents><Key>a/%F0%9F%8E%AC%00.mp4</Key><LastModified>2024-01-01T00:00:00.250Z</LastModified>\
        <ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>7</Size>\
        <StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>";

    #[test]
    fn the_pages_of_b2_aws_and_the_fake_are_plain() {
        for (page, entries) in [(OF_AWS, 2), (OF_B2, 2), (OF_THE_FAKE, 1)] {
            assert!(agrees(page.as_bytes()), "{page}");
            assert_eq!(scan_list_page(page.as_bytes()).unwrap().entries.len(), entries);
        }
        let page = scan_list_page(OF_B2.as_bytes()).unwrap();
        assert_eq!(page.next_token.as_deref(), Some("YS8yLm1wNA==/+"));
        let keys: Vec<_> = page.entries.iter().map(|entry| (entry.key, entry.etag, entry.size)).collect();
        assert_eq!(keys[1], ("a/2.mp4", "e", SIZE_MAX));
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_parser_of_events() {
        let page = OF_THE_FAKE;
        for (from, to) in [
            ("<?xml", "\u{feff}<?xml"),
            ("<?xml", " <?xml"),
            ("<Name>", "<!-- --><Name>"),
            ("<Name>", "x<Name>"),
            ("<Name>", "<Name a=\"b\">"),
            ("</Name>", "</Name >"),
            ("<Prefix>a/", "<Prefix>&lt;"),
            ("<Prefix>a/", "<Prefix>é"),
            ("<Name>bucket</Name>", "<x:Name>bucket</x:Name>"),
            ("<Name>bucket</Name>", "<Contents/>"),
            ("<Name>bucket</Name>", "<CommonPrefixes><Prefix>a</Prefix></CommonPrefixes>"),
            ("<IsTruncated>true", "<IsTruncated> true"),
            ("<IsTruncated>true</IsTruncated>", ""),
            ("<EncodingType>url</EncodingType>", ""),
            ("<EncodingType>url", "<EncodingType>URL"),
            ("<EncodingType>url</EncodingType>", "<EncodingType>url</EncodingType><EncodingType>url</EncodingType>"),
            ("<NextContinuationToken>AbC-_9<", "<NextContinuationToken>&amp;<"),
            ("<NextContinuationToken>AbC-_9<", "<NextContinuationToken><"),
            ("<Key>a", "<Key><![CDATA[a]]>"),
            ("<Key>a", "<Key>a&amp;"),
            ("<Key>a", "<Key>a\r\n"),
            ("<Key>a", "<Key>%"),
            ("<Key>a", "<Key>%g0"),
            ("<Key>a", "<Key>%FF"),
            ("%8E%AC%00.mp4</Key>", "</Key>"),
            ("<Key>a/%F0%9F%8E%AC%00.mp4</Key>", "<Key></Key>"),
            ("<Key>a/%F0%9F%8E%AC%00.mp4</Key>", "<Key/>"),
            ("<Key>a/%F0%9F%8E%AC%00.mp4</Key>", ""),
            ("<Key>a", "<Key>b</Key><Key>a"),
            ("<Size>7</Size>", "<Size></Size>"),
            ("<Size>7</Size>", "<Size>7</Size><Size/>"),
            ("<Size>7", "<Size>+7"),
            ("<Size>7", "<Size>7.0"),
            ("<Size>7", "<Size>18446744073709551615"),
            ("<Size>7", "<Size>9223372036854775808"),
            ("<Size>7", "<Size>9999999999999999999"),
            ("<Size>7", "<Size>-7"),
            ("<Size>7", "<Size>abc"),
            ("<LastModified>2024-01-01", "<LastModified>2024-02-30"),
            ("00:00:00.250Z", "23:59:60.000Z"),
            ("00:00:00.250Z", "00:00:00.2500Z"),
            ("00:00:00.250Z", "00:00:00+00:00"),
            ("<ETag>&quot;", "<ETag>&amp;"),
            ("<ETag>&quot;", "<ETag>"),
            ("<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;", "<ETag>&quot;&quot;"),
            ("</Contents>", ""),
            ("</ListBucketResult>", ""),
            ("</ListBucketResult>", "</ListBucketResult><a/>"),
        ] {
            let other = page.replacen(from, to, 1);
            assert_ne!(other, page, "{from}");
            assert!(!agrees(other.as_bytes()), "{from} {to}");
        }
        let entry = &page[page.find("<Contents>").unwrap()..page.rfind("</ListBucketResult>").unwrap()];
        for (count, plain) in [(PAGE_ENTRIES_MAX - 1, true), (PAGE_ENTRIES_MAX, false)] {
            let many = page.replacen(entry, &entry.repeat(count + 1), 1);
            assert_eq!(agrees(many.as_bytes()), plain);
        }
    }

    #[test]
    fn a_run_of_plain_bytes_ends_at_the_first_that_is_not() {
        for length in 0..20 {
            for other in 0..=255u8 {
                for behind in [b'a', b'<', 0xff, 0] {
                    let mut bytes = vec![b'a'; length];
                    bytes.push(other);
                    bytes.resize(24, behind);
                    let is_plain = |byte: u8| (b'-'..0x80).contains(&byte) && byte != b'<';
                    assert_eq!(plain_length(&bytes), bytes.iter().take_while(|&&byte| is_plain(byte)).count());
                }
            }
        }
    }

    /// Pieces of a page, in as many shapes as come to mind; `plain` of them only such as the scanner must take.
    fn page(plain: bool) -> impl Strategy<Value = String> {
        let odd = if plain { 0u32 } else { 1 };
        let one_of = move |usual: &'static [&'static str], others: &'static [&'static str]| {
            let others = if plain || others.is_empty() { usual } else { others };
            prop_oneof![30 => proptest::sample::select(usual), odd => proptest::sample::select(others)].boxed()
        };
        let space =
            move || one_of(&["", "", "", "\n", "\n    ", " \t\r\n"], &["x", "<!-- -->", "&amp;", "<?pi?>", "\u{a0}"]);
        let key = (any::<String>(), 0..4usize).prop_map(|(key, how)| match how {
            0 => utf8_percent_encode(&format!("k{key}"), USUAL).to_string(),
            1 => utf8_percent_encode(&format!("k{key}"), USUAL).to_string().replace("%20", "+").to_lowercase(),
            2 => utf8_percent_encode(&format!("k{key}"), SPARSE).to_string(),
            _ => utf8_percent_encode(&format!("videos/2024/clip-0001{key}.mp4"), USUAL).to_string(),
        });
        let key = prop_oneof![30 => key, odd => "[a%+&<> \r\n\"é0-9]{0,6}"].boxed();
        let time = prop_oneof![
            30 => "20[0-9][0-9]-0[1-9]-[01][1-8]T[01][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{3})?Z",
            odd => "[0-2]{4}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,4})?(Z|z|\\+01:00)?",
        ];
        let quote = move || one_of(&["\"", "&quot;", "&#34;", ""], &["&#x22;", " ", "&amp;", "\"\""]);
        let etag = prop_oneof![30 => "[0-9a-f]{32}", 5 => "[0-9a-f]{32}-[0-9]{1,4}", odd => "[ -~]{0,9}"];
        let etag = (quote(), etag, any::<bool>(), quote()).prop_map(move |(before, etag, same, after)| {
            format!("{before}{etag}{}", if same || plain { before } else { after })
        });
        let size = prop_oneof![30 => "0?[0-9]{1,18}", odd => "[ +-]?[0-9]{0,21} ?", odd => "9[0-9]{18}|[a-z]{0,3}"];
        let unknown = move || {
            one_of(
                &[
                    "<StorageClass>STANDARD</StorageClass>",
                    "<Owner><ID>a b</ID><DisplayName/></Owner>",
                    "<Owner>\n<ID>a</ID>\n<Key>x</Key>\n</Owner>",
                    "<ChecksumAlgorithm>CRC32</ChecksumAlgorithm>",
                    "<Empty/>",
                    "",
                ],
                &[
                    "<Size>1</Size>",
                    "<Key/>",
                    "<a><b><c/></b></a>",
                    "<a>&lt;</a>",
                    "<a b='>'/>",
                    "<Contents/>",
                    "<Owner>x<ID/>y</Owner>",
                    "<ETag",
                    "</Owner>",
                    "<1/>",
                    "<a>]]></a>",
                ],
            )
        };
        // As most stores write it: the scanner has a way of its own for that.
        let usual = (
            key.clone(),
            "20[0-9][0-9]-0[1-9]-[01][1-8]T[01][0-9]:[0-5][0-9]:[0-5][0-9]\\.[0-9]{3}Z",
            "[0-9a-f]{32}",
            "[0-9]{1,18}",
        );
        let usual = usual.prop_map(|(key, time, etag, size)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>{time}</LastModified><ETag>&quot;{etag}&quot;</ETag>\
                 <Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
        });
        let field = |name: &'static str, value: BoxedStrategy<String>| {
            value.prop_map(move |value| format!("<{name}>{value}</{name}>")).boxed()
        };
        let fields = (
            field("Key", key),
            field("LastModified", time.boxed()),
            field("ETag", etag.boxed()),
            field("Size", size.boxed()),
            unknown(),
        );
        let fields = fields.prop_map(|(a, b, c, d, e)| vec![a, b, c, d, e.to_owned()]);
        let fields = prop_oneof![fields.clone(), fields.prop_shuffle()];
        let entry = (fields, space(), 0..40u32, any::<Index>()).prop_map(move |(mut fields, space, drop, index)| {
            if drop == 0 && !plain {
                fields.remove(index.index(fields.len()));
            }
            format!("<Contents>{space}{}{space}</Contents>", fields.join(space))
        });
        let head = (
            one_of(
                &["<IsTruncated>true</IsTruncated>", "<IsTruncated>false</IsTruncated>"],
                &["", "<IsTruncated> true </IsTruncated>", "<IsTruncated>1</IsTruncated>", "<IsTruncated/>"],
            ),
            one_of(
                &["", "<NextContinuationToken>a=/+</NextContinuationToken>"],
                &["<NextContinuationToken/>", "<NextContinuationToken>&lt;</NextContinuationToken>"],
            ),
            one_of(
                &["<EncodingType>url</EncodingType>"],
                &["", "<EncodingType/>", "<EncodingType>x</EncodingType>", "<EncodingType>url </EncodingType>"],
            ),
            one_of(
                &["<Name>b</Name><Prefix/>", "<Prefix>a%20</Prefix>\n<MaxKeys>1000</MaxKeys>", ""],
                &["<CommonPrefixes><Prefix>a+</Prefix></CommonPrefixes>", "<CommonPrefixes/>", "<KeyCount"],
            ),
        );
        let entry = prop_oneof![entry, usual];
        let parts = (vec(entry, 0..6), head, any::<bool>()).prop_flat_map(|(entries, (a, b, c, d), shuffled)| {
            let head = [a, b, c, d].map(str::to_owned);
            let parts: Vec<_> = head.into_iter().chain(entries).collect();
            if shuffled { Just(parts).prop_shuffle().boxed() } else { Just(parts).boxed() }
        });
        let frame = (
            one_of(
                &["", "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n", "<?xml version='1.0'?>"],
                &["<?xml?>", "\u{feff}", "<?xml version=\"1.0\" encoding=\"UTF-16\"?>", "<!DOCTYPE html>"],
            ),
            one_of(&["", " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""], &[" a='b'", " xmlns=\"\"", "2", "/"]),
        );
        (parts, frame, space(), space()).prop_map(|(parts, (before, attribute), space, after)| {
            format!(
                "{before}<ListBucketResult{attribute}>{space}{}{space}</ListBucketResult>{after}",
                parts.join(space)
            )
        })
    }

    /// What can happen to bytes on their way.
    #[derive(Clone, Debug)]
    enum Damage {
        Flip(Index, u8),
        Delete(Index, usize),
        Insert(Index, Vec<u8>),
        Repeat(Index, usize, Index),
        Truncate(Index),
    }

    fn damage() -> impl Strategy<Value = Damage> {
        let telling = prop_oneof![
            vec(any::<u8>(), 1..4),
            "[<>&;/%+\"' \r\n!?\\[\\]-]{1,3}".prop_map(String::into_bytes),
            proptest::sample::select(
                &["<Key>", "</Key>", "<!--", "-->", "<![CDATA[", "]]>", "&quot;", "é", "\u{85}"][..]
            )
            .prop_map(|text| text.as_bytes().to_vec()),
        ];
        prop_oneof![
            (any::<Index>(), 1..=255u8).prop_map(|(at, bits)| Damage::Flip(at, bits)),
            (any::<Index>(), 1..40usize).prop_map(|(at, length)| Damage::Delete(at, length)),
            (any::<Index>(), telling).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
            (any::<Index>(), 1..200usize, any::<Index>()).prop_map(|(at, length, to)| Damage::Repeat(at, length, to)),
            any::<Index>().prop_map(Damage::Truncate),
        ]
    }

    fn apply(damage: Damage, body: &mut Vec<u8>) {
        if body.is_empty() {
            return;
        }
        let end = body.len();
        let span = |at: Index, length: usize| -> Range<usize> {
            let start = at.index(end);
            start..(start + length).min(end)
        };
        match damage {
            Damage::Flip(at, bits) => body[span(at, 1)].iter_mut().for_each(|byte| *byte ^= bits),
            Damage::Delete(at, length) => drop(body.drain(span(at, length))),
            Damage::Insert(at, bytes) => drop(body.splice(span(at, 0), bytes)),
            Damage::Repeat(at, length, to) => {
                let copy = body[span(at, length)].to_vec();
                drop(body.splice(span(to, 0), copy));
            }
            Damage::Truncate(at) => body.truncate(at.index(body.len())),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_024))]

        #[test]
        fn a_plain_page_is_taken(page in page(true)) {
            prop_assert!(agrees(page.as_bytes()), "{}", page);
        }

        #[test]
        fn any_page_is_read_as_by_events_or_not_at_all(page in page(false)) {
            agrees(page.as_bytes());
        }

        #[test]
        fn so_is_a_damaged_page(page in page(true), damages in vec(damage(), 1..4)) {
            let mut body = page.into_bytes();
            for damage in damages {
                apply(damage, &mut body);
                agrees(&body);
            }
        }
    }

    /// Every byte of a page, changed into every other that has a meaning: no luck needed.
    #[test]
    fn no_single_byte_makes_a_page_read_as_another() {
        for page in [OF_B2, OF_THE_FAKE] {
            let mut body = page.as_bytes().to_vec();
            for at in 0..body.len() {
                for other in *b"<>&;/%+\"' \r\n\0a0Z\x80-" {
                    let was = std::mem::replace(&mut body[at], other);
                    agrees(&body);
                    body[at] = was;
                }
                agrees(&body[..at]);
            }
        }
    }
}
