//! Headers to the site.
