-- no oracle: batch fails as a whole
SELECT flight, 1000 / seats AS per_seat FROM flights
