//! The conformance suite over MemoryStore.
