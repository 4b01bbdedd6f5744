"""The stand-in account, and the contract that it shares with Azurite."""
