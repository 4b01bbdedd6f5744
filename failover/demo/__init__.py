"""The demonstration, without its screen: settings, account, faults, the run and its events, clean-up."""
