//! One parsed document -> object, with errors that name object, field and reason.
