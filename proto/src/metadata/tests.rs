//! Tests of records, image and snapshot.
