<?php
include 'novcomet.php';

$comet = new NovComet();

$publish = filter_input(INPUT_GET, 'publish');
if ($publish != '') {
    echo $comet->publish($publish);
} else {
    $subscribed = isset($_GET['subscribed']) ? (array) $_GET['subscribed'] : array();
    foreach (filter_var_array($subscribed, FILTER_SANITIZE_NUMBER_INT) as $key => $value) {
        $comet->setVar($key, $value);
    }
    echo $comet->run();
}
