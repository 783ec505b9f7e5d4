SELECT flight, unnest(plane) FROM flights
