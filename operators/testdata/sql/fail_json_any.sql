-- fails: 3:8+20: the column `gate` has a JSON value of any type, which cannot flow on
--  hint: take text with `->>`, or a type with `json_get_int` and its like
SELECT body->'gate' AS gate FROM flights
