//! One test per promise of the ledger.
