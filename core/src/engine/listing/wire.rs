//! A [`RangeReader`] as JSON: a range is read elsewhere, where there are connections free, and comes back. Both sides
//! are of the same deployment, so this is no stored format.
//!
//! A reader holds no reference to where it is read and no state, so the place that has it goes on as if it had never
//! left.

use serde::{Deserialize, Serialize};

use super::{Content, Etags, Mark, Open, Piece, RangeReader, Sealed, source::ListingWatch};
use crate::{
    error::Error,
    snapshot::{
        codec::DecodeError,
        cut::Begins,
        index::{Level, SegmentRef},
        segment,
    },
    state::{
        document::{decode_node, encode_node},
        embedded::{decode_bytes, encode_bytes},
    },
};

/// A [`RangeReader`], field by field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderWire {
    from: Option<String>,
    end: Option<String>,
    watch: ListingWatch,
    token: Option<String>,
    known: Option<String>,
    open: String,
    hold: Option<String>,
    held: Vec<PieceWire>,
    leaf_segments: usize,
    leaf_aligned: bool,
    begins: Option<Begins>,
    since: Mark,
    pieces: Vec<PieceWire>,
    keys: u64,
    pages: u32,
    before: u64,
    listed: u64,
    matched: u64,
    split_after: u32,
    page_common: usize,
    done: bool,
}

/// A [`Piece`], field by field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PieceWire {
    content: ContentWire,
    until: Mark,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ContentWire {
    Nothing,
    Leaf(Option<String>),
    Segment { node: Option<String>, bytes: String, etags: String },
}

fn node_of(item: &SegmentRef) -> Option<String> {
    encode_node(Level::Leaf, std::slice::from_ref(item))
}

fn item_of(node: Option<&str>) -> Result<SegmentRef, DecodeError> {
    decode_node(node)?.into_iter().next().ok_or(DecodeError::Truncated)
}

impl PieceWire {
    fn of(piece: &Piece) -> Self {
        let content = match &piece.content {
            Content::Nothing => ContentWire::Nothing,
            Content::Leaf(leaf) => ContentWire::Leaf(node_of(leaf)),
            Content::Segment(sealed) => ContentWire::Segment {
                node: node_of(&sealed.segment),
                bytes: encode_bytes(&sealed.bytes),
                etags: encode_bytes(&sealed.etags.0),
            },
        };
        Self { content, until: piece.until.clone() }
    }

    fn into_piece(self) -> Result<Piece, DecodeError> {
        let content = match self.content {
            ContentWire::Nothing => Content::Nothing,
            ContentWire::Leaf(node) => Content::Leaf(item_of(node.as_deref())?),
            ContentWire::Segment { node, bytes, etags } => Content::Segment(Sealed {
                segment: item_of(node.as_deref())?,
                bytes: decode_bytes(&bytes)?,
                etags: Etags(decode_bytes(&etags)?),
            }),
        };
        Ok(Piece { content, until: self.until })
    }
}

impl ReaderWire {
    /// All of a reader.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`]; it does not happen.
    pub fn of(reader: &RangeReader) -> Result<Self, Error> {
        let known: Vec<SegmentRef> = reader.known.iter().cloned().collect();
        let open = match reader.open.clone().seal() {
            Some(sealed) => sealed.entries().map_err(unreadable)?,
            None => Vec::new(),
        };
        Ok(Self {
            from: reader.from.clone(),
            end: reader.end.clone(),
            watch: reader.watch.clone(),
            token: reader.token.clone(),
            known: encode_node(Level::Leaf, &known),
            open: encode_bytes(&segment::encode_entries(&open)),
            hold: reader.hold.as_ref().and_then(node_of),
            held: reader.held.iter().map(PieceWire::of).collect(),
            leaf_segments: reader.leaf_segments,
            leaf_aligned: reader.leaf_aligned,
            begins: reader.begins,
            since: reader.since.clone(),
            pieces: reader.pieces.iter().map(PieceWire::of).collect(),
            keys: reader.keys,
            pages: reader.pages,
            before: reader.before,
            listed: reader.listed,
            matched: reader.matched,
            split_after: reader.split_after,
            page_common: reader.page_common,
            done: reader.done,
        })
    }

    /// [`Self::of`] without the pieces that are complete, and without the keys that were read: the place that asks for
    /// the range to be read on keeps them, for [`RangeReader::go_on_as`].
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn rest_of(reader: &mut RangeReader) -> Result<Self, Error> {
        let (pieces, keys) = (reader.take_pieces(), reader.take_keys());
        let rest = Self::of(reader);
        (reader.pieces, reader.keys) = (pieces, keys);
        rest
    }

    /// The reader.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`] for what [`Self::of`] did not make.
    pub fn into_reader(self) -> Result<RangeReader, Error> {
        let pieces = |pieces: Vec<PieceWire>| -> Result<Vec<Piece>, DecodeError> {
            pieces.into_iter().map(PieceWire::into_piece).collect()
        };
        let read = || -> Result<RangeReader, DecodeError> {
            let hold = self.hold.as_deref().map(|hold| item_of(Some(hold))).transpose()?;
            Ok(RangeReader {
                from: self.from,
                end: self.end,
                watch: self.watch,
                token: self.token,
                known: decode_node(self.known.as_deref())?.into(),
                open: Open::of(&segment::decode_entries(&decode_bytes(&self.open)?)?),
                hold,
                held: pieces(self.held)?,
                leaf_segments: self.leaf_segments,
                leaf_aligned: self.leaf_aligned,
                begins: self.begins,
                since: self.since,
                pieces: pieces(self.pieces)?,
                keys: self.keys,
                pages: self.pages,
                before: self.before,
                listed: self.listed,
                matched: self.matched,
                split_after: self.split_after,
                page_common: self.page_common,
                done: self.done,
            })
        };
        read().map_err(unreadable)
    }
}

fn unreadable(error: DecodeError) -> Error {
    Error::internal(format!("A range that is read elsewhere does not decode: {error}."))
}
