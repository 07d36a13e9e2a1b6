"""A long run of one mitmdump among hundreds of servers, good and bad: see `scripts/soak`."""
