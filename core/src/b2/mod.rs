//! What Backblaze B2 speaks: authorization, signatures, listings.
