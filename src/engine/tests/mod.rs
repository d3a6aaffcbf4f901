//! What must hold whichever engine serves.

mod golden;
