SELECT flight, make_array(flight, flight + 1) AS pair, named_struct('a', flight, 'b', carrier) AS s, array_to_string(tags, '+') AS joined FROM flights WHERE flight < 4
