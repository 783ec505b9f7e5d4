-- fails: 3:8+23: function 'date_trunc' requires Time, but received List(String)
--  hint: it takes date_trunc(String, Timestamp) or date_trunc(String, Time)
SELECT date_trunc('hour', tags) AS h FROM flights
