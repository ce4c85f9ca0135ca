//! Tests of this module's parts against each other.
