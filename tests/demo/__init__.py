"""The parts of the demonstration: settings, account, faults, the run, clean-up."""
