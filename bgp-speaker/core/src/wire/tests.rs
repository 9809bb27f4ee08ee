//! Tests of the whole layer: a table of malformed inputs, round trips, mutations, another decoder.
