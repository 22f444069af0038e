//! Web pages, credentials, TLS.
