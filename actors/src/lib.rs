//! Who decides in Heddle: tenant, conversation and account, as pure state machines with actors around them.
