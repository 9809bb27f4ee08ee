//! What the kernel has and does.
