SELECT flight, unnest([1, 2]) AS n FROM flights WHERE flight < 3
