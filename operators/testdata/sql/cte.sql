WITH late AS (SELECT flight, carrier, delay FROM flights WHERE delay > 10),
     named AS (SELECT late.*, a.name FROM late LEFT JOIN airlines a ON a.carrier = late.carrier)
SELECT flight, name, round(delay) AS delay FROM named
