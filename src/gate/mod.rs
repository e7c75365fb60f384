//! The public side: which requests are polls, how they are held and answered, and how all
//! others reach the site.

pub mod forward;
pub mod hold;
pub mod route;
pub mod upstream;
