SELECT flight, flight + 1 AS next, delay * 2 AS twice, -delay AS minus, flight % 3 AS rest, price * 1.5 AS more, delay / 60.0 AS hours FROM flights
