"""RA-GRS storage: reads that survive the loss of the primary. Knows the Azure SDK, knows no screen."""
