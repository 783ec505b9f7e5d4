SELECT * EXCEPT (tags, legs, plane, body) FROM flights WHERE flight = 1
