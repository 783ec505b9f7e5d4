-- fails: 3:17+25: a subquery that gives one value needs state, which the sql operator does not keep yet
--  hint: join the table instead: `… JOIN codes ON codes.id = flights.id`
SELECT flight, (SELECT name FROM airlines) AS name FROM flights
