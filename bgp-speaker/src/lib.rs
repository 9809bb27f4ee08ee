//! Under construction by this change.
