-- fails: 3:8+16: function 'upper' expects 1 arguments but received 2
--  hint: it takes upper(String)
SELECT upper(carrier, 2) AS u FROM flights
