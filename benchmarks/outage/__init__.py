"""What does an outage of the primary cost a reader, with `GeoFailover` and without?"""
